"""Text that came from elsewhere, made fit to be shown: names, reasons, addresses."""

import re

PASSWORD = re.compile(r"(://[^/\s:@]*):[^/\s]*@")


def printable(text: str, keep: str = "") -> str:
    """The text with every letter that is not to be printed written out, such as the escape that commands a terminal,
    a line's end, or one that turns the direction of writing.

    Args:
        text: any.
        keep: letters that stay, such as a line's end.
    """
    return "".join(letter if letter.isprintable() or letter in keep else repr(letter)[1:-1] for letter in text)


def without_passwords(text: str) -> str:
    """The text with the password of each address in it, `scheme://user:password@host`, left out."""
    return PASSWORD.sub(r"\1:…@", text)


def in_markdown(name: str) -> str:
    """A name as Markdown that shows it, whatever is in it."""
    return re.sub(r"([\\`*_\[\]<>&!|~:$])", r"\\\1", printable(name))
