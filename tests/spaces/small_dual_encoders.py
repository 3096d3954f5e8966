"""Small random models of the other dual encoders of transformers, with tokenizers and processors of the kinds they have."""

import json

from small_parts import CLIP_LENGTH, CLIP_PIECES, TINY, clip_tokenizer, randomised, save_parts

EDGE, PATCH, WIDTH = 32, 8, 24
ASCII = [chr(code) for code in range(33, 127)]


def bert_tokenizer():
    from transformers import BertTokenizer

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *ASCII, *(f"##{letter}" for letter in ASCII)]
    return BertTokenizer(vocab={piece: at for at, piece in enumerate(pieces)}, model_max_length=64)


def xlmr_tokenizer():
    from transformers import XLMRobertaTokenizer

    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    return XLMRobertaTokenizer(
        vocab=[(piece, -1.0) for piece in (*specials, "▁", *ASCII, "<mask>")], model_max_length=64
    )


def gemma_tokenizer():
    """As the files of SigLIP 2 have it: an end token, none at the start, capital letters kept."""
    from transformers import GemmaTokenizer

    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *ASCII, *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {piece: at for at, piece in enumerate(pieces)}
    return GemmaTokenizer(
        vocab=vocabulary, add_bos_token=False, add_eos_token=True, model_max_length=64, padding_side="right"
    )


def tipsv2_tokenizer():
    from transformers import Tipsv2Tokenizer

    pieces = ["<pad>", "<unk>", "▁", *ASCII, *(f"<0x{byte:02X}>" for byte in range(256))]
    return Tipsv2Tokenizer(vocab={piece: at for at, piece in enumerate(pieces)})


def clip_processor():
    from transformers import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size={"shortest_edge": EDGE}, crop_size={"height": EDGE, "width": EDGE})


def small(prefix, tokenizer, text=(), vision=(), joint=True):
    """One model by the prefix of its classes; both towers are tiny transformers but for what is given."""
    import transformers

    def config_of(kind, **settings):
        return getattr(transformers, f"{prefix}{kind}Config")(**settings)

    count = max(tokenizer.get_vocab().values()) + 1
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    ends |= {"vocab_size": count, "max_position_embeddings": 64, "pad_token_id": tokenizer.pad_token_id}
    text = TINY | ends | dict(text)
    vision = TINY | {"image_size": EDGE, "patch_size": PATCH} | dict(vision)
    options = {"projection_dim": WIDTH} if joint else {}
    config = config_of("", text_config=text, vision_config=vision, **options)
    return randomised(getattr(transformers, f"{prefix}Model")(config))


def write_siglip2(folder):
    """Pictures of one size: the architecture is SigLIP's own, the tokenizer is Gemma's."""
    from transformers import SiglipImageProcessorPil

    tokenizer = gemma_tokenizer()
    model = small("Siglip", tokenizer, {"projection_size": 32}, joint=False)
    return save_parts(folder, model, SiglipImageProcessorPil(size={"height": EDGE, "width": EDGE}), tokenizer)


def write_siglip2_naflex(folder):
    from transformers import Siglip2ImageProcessorPil, Siglip2Tokenizer

    plain = gemma_tokenizer()
    tokenizer = Siglip2Tokenizer(vocab=plain.get_vocab(), add_bos_token=False, add_eos_token=True, padding_side="right")
    model = small("Siglip2", tokenizer, {"projection_size": 32}, {"num_patches": 16}, joint=False)
    return save_parts(folder, model, Siglip2ImageProcessorPil(patch_size=PATCH, max_num_patches=16), tokenizer)


def write_tipsv2(folder):
    tokenizer = tipsv2_tokenizer()
    save_parts(folder, small("Tipsv2", tokenizer, joint=False), tokenizer)
    settings = {"image_processor_type": "Tipsv2ImageProcessor", "size": {"height": EDGE, "width": EDGE}}
    settings |= {"do_resize": True, "do_rescale": True, "do_normalize": False, "resample": 2, "do_convert_rgb": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings | {"rescale_factor": 1 / 255}))


def write_metaclip2(folder):
    tokenizer = xlmr_tokenizer()
    model = small("MetaClip2", tokenizer, {"projection_dim": WIDTH}, {"projection_dim": WIDTH})
    return save_parts(folder, model, clip_processor(), tokenizer)


def write_chinese_clip(folder):
    from transformers import ChineseCLIPImageProcessorPil

    tokenizer = bert_tokenizer()
    processor = ChineseCLIPImageProcessorPil(size={"shortest_edge": EDGE}, crop_size={"height": EDGE, "width": EDGE})
    return save_parts(folder, small("ChineseCLIP", tokenizer), processor, tokenizer)


def write_altclip(folder):
    tokenizer = xlmr_tokenizer()
    text = {"project_dim": 32, "max_position_embeddings": 66}  # RoBERTa counts positions from behind the padding's
    return save_parts(folder, small("AltCLIP", tokenizer, text, {"projection_dim": WIDTH}), clip_processor(), tokenizer)


def write_align(folder):
    """Its picture tower is a convolutional network, of a single stage here."""
    from transformers import AlignConfig, AlignModel, EfficientNetImageProcessorPil

    tokenizer = bert_tokenizer()
    vision = {
        "width_coefficient": 1.0, "depth_coefficient": 1.0, "kernel_sizes": [3], "in_channels": [32], "out_channels": [WIDTH],
        "strides": [2], "num_block_repeats": [1], "expand_ratios": [2], "hidden_dim": 32, "image_size": EDGE,
    }  # fmt: skip
    text = TINY | {"vocab_size": len(tokenizer), "max_position_embeddings": 64}
    model = randomised(AlignModel(AlignConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)))
    size = {"height": EDGE, "width": EDGE}
    return save_parts(folder, model, EfficientNetImageProcessorPil(size=size, crop_size=size), tokenizer)


def write_groupvit(folder):
    from transformers import GroupViTConfig, GroupViTModel

    count = len(CLIP_PIECES)
    text = TINY | {"vocab_size": count, "max_position_embeddings": CLIP_LENGTH}
    text |= {"bos_token_id": count - 2, "eos_token_id": count - 1}
    vision = TINY | {
        "image_size": EDGE, "patch_size": PATCH, "depths": [1, 1, 0], "num_group_tokens": [4, 2, 0],
        "num_output_groups": [4, 2, 2],
    }  # fmt: skip
    config = GroupViTConfig(
        text_config=text, vision_config=vision, projection_dim=WIDTH, projection_intermediate_dim=32
    )
    return save_parts(folder, randomised(GroupViTModel(config)), clip_processor(), clip_tokenizer())


def write_aimv2(folder):
    tokenizer = clip_tokenizer()
    return save_parts(
        folder, small("Aimv2", tokenizer, {"max_position_embeddings": CLIP_LENGTH}), clip_processor(), tokenizer
    )


DUAL_ENCODERS = {
    "siglip2": (write_siglip2, 32),
    "siglip2-naflex": (write_siglip2_naflex, 32),
    "tipsv2": (write_tipsv2, 32),
    "metaclip2": (write_metaclip2, WIDTH),
    "chinese-clip": (write_chinese_clip, WIDTH),
    "altclip": (write_altclip, WIDTH),
    "align": (write_align, WIDTH),
    "groupvit": (write_groupvit, WIDTH),
}
"""By kind, what writes a folder, and the width of the space."""
