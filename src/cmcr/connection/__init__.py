"""The paper: enhancement, projectors, losses, training, and the connection they give.

Imports torch, numpy, safetensors and the base of cmcr only: it can be read and tested alone.
"""
