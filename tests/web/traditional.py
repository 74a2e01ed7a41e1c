"""Makes the catalogue in traditional Chinese from the one in simplified Chinese.

    python -m tests.web.traditional

OpenCC (1.4.2, ``s2twp``: characters and words of Taiwan) converts; the words below are those that the trade says
otherwise, or that OpenCC leaves, as they have a meaning of their own in both.
"""

from io import BytesIO
from pathlib import Path

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from opencc import OpenCC

FOLDER = Path(__file__).parents[2] / "web" / "translations"
SIMPLIFIED = FOLDER / "zh_Hans_CN" / "LC_MESSAGES" / "messages.po"
TRADITIONAL = FOLDER / "zh_Hant_TW" / "LC_MESSAGES" / "messages.mo"

WORDS = {
    "質量": "品質",
    "賬號": "帳號",
    "賬戶": "帳戶",
    "登入名": "帳號",
    "字段": "欄位",
    "許可權": "權限",
    "隻升": "只升",
    "隻降": "只降",
    "“": "「",
    "”": "」",
}


def traditional() -> bytes:
    """Return the compiled catalogue."""
    converter = OpenCC("s2twp")

    def converted(text: str) -> str:
        text = converter.convert(text)
        for word, better in WORDS.items():
            text = text.replace(word, better)
        return text

    with SIMPLIFIED.open("rb") as file:
        catalogue = read_po(file, locale="zh_Hant_TW")
    for message in catalogue:
        if message.id:
            forms = message.string if isinstance(message.string, list | tuple) else (message.string,)
            changed = tuple(converted(form) for form in forms)
            message.string = changed if message.pluralizable else changed[0]
    compiled = BytesIO()
    write_mo(compiled, catalogue)
    return compiled.getvalue()


if __name__ == "__main__":
    TRADITIONAL.parent.mkdir(parents=True, exist_ok=True)
    TRADITIONAL.write_bytes(traditional())
