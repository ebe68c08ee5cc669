"""Web pages whose text is known, for the tests that extract it."""

SENTENCE = "The gopher digs a burrow of many chambers, and what it moves it carries up to the surface. "


def page(body: str, title: str = "t") -> str:
    return f"<html><head><title>{title}</title></head><body>{body}</body></html>"


def article(marker: str, paragraphs: int = 4) -> str:
    """A page whose text contains `marker` and SENTENCE, and not its menu."""
    text = "".join(f"<p>{marker} {number}. {SENTENCE * 3}</p>" for number in range(paragraphs))
    menu = "<nav><ul><li><a href='/'>Home menu</a></li><li><a href='/b'>Imprint</a></li></ul></nav>"
    return page(f"{menu}<article>{text}</article><footer>Copyright</footer>")
