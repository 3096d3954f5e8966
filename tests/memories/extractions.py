"""What the tests of extraction embed."""

SHARD_ITEMS = 50
_WORDS = "zero one two three four five six seven eight nine".split()


def text_of(number):
    """Write a number as words; every 37th line cannot be embedded."""
    words = " ".join(_WORDS[int(digit)] for digit in f"{number:03d}")
    return f"\0{words}" if number % 37 == 5 else words


def write_texts(path, count, mended=False):
    """Write a list of texts."""
    lines = [text_of(number) for number in range(count)]
    path.write_text("".join(f"{line.lstrip(chr(0)) if mended else line}\n" for line in lines), encoding="utf-8")
    return path
