"""What the small random models of all kinds are made of: sizes, weights, and a tokenizer of letters."""

import torch

TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
CLIP_LENGTH = 24
LETTERS = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 324))]  # one stands for each byte
CLIP_PIECES = [*LETTERS, *(letter + "</w>" for letter in LETTERS), "ca", "cat</w>", "<|startoftext|>", "<|endoftext|>"]
CLAP_PIECES = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *LETTERS]


def randomised(network, seed=0):
    """Weights that depend on the seed alone, large enough for items to land far apart; statistics included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                fan_in = value[0].numel() if value.ndim else 1
                spread = 0.5 + torch.rand(value.shape, generator=generator)
                normal = torch.randn(value.shape, generator=generator) * 2 * fan_in**-0.5
                if name.endswith("bias"):  # which all items share: large ones bring them together
                    normal *= 0.3
                value.copy_(spread if name.endswith("running_var") else normal)
    return network.eval()


def save_parts(folder, *parts):
    for part in parts:
        part.save_pretrained(folder)
    return folder


def clip_tokenizer():
    """A token a letter, and a few merges."""
    from transformers import CLIPTokenizer

    vocabulary = {piece: number for number, piece in enumerate(CLIP_PIECES)}
    return CLIPTokenizer(vocab=vocabulary, merges=[("c", "a"), ("ca", "t</w>")], model_max_length=CLIP_LENGTH)
