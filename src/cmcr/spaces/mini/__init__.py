"""Three small spaces, trained by `recipes/mini/train.py` on the miniature world of numbers and shipped with cmcr."""
