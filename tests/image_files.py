"""Image files, whole and broken."""

from pathlib import Path

from PIL import Image


def write_image(path: Path, value: int = 0) -> str:
    """A picture of one colour, `value` of red; its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 16), (value, 0, 0)).save(path)
    return str(path)


def bad_files(folder: Path) -> list[dict]:
    """Records of three files that cannot be read and of a whole one."""
    Image.effect_noise((40, 40), 50).save(folder / "whole.png")
    content = (folder / "whole.png").read_bytes()
    (folder / "text.jpg").write_text("not an image")
    (folder / "cut.png").write_bytes(content[: len(content) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    files = ("text.jpg", "cut.png", "empty.jpg", "whole.png")
    return [{"file_name": str(folder / name)} for name in files]


def names(records: list[dict]) -> list[str]:
    """The files of records."""
    return [record["file_name"] for record in records]
