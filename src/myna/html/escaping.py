"""Text in markup: what models, runs and people write is shown, and never understood by a browser."""

from html import escape


def escaped(text: object) -> str:
    """Text for markup or an attribute. Halves of surrogate pairs, which no file can hold, become "?".

    >>> escaped('<script a="1">'), escaped("\\ud800")
    ('&lt;script a=&quot;1&quot;&gt;', '?')
    """
    return escape(str(text).encode("utf-8", "replace").decode("utf-8"), quote=True)


def with_code(text: str) -> str:
    """Markup of a text; what stands between backticks is code.

    >>> with_code("run `myna <x>`")
    'run <code>myna &lt;x&gt;</code>'
    """
    parts = text.split("`")
    return "".join(
        f"<code>{escaped(part)}</code>" if n % 2 and n < len(parts) - 1 else "`" * (n % 2) + escaped(part)
        for n, part in enumerate(parts)
    )
