"""What the documents tell a reader to type: commands, and keys of configs with their values."""

import ast
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from config_files import FILES, REPOSITORY

_MARKDOWN = ("README.md", "CONTRIBUTING.md", "MODEL_ZOO.md", "docs/**/*.md", "configs/*/README.md")
_MARKDOWN += ("detectron2-lite/README.md", "benchmarks/**/*.md", "tests/golden/README.md")
_PYTHON = ("lazyconfig_train_net.py", "tools/*.py", "configs/**/*.py", "benchmarks/*.py")
_PYTHON += ("mimdet/**/*.py",)

# Words that stand for something of the reader's -> what the tests put there.
PLACEHOLDERS = {
    "CONFIG": "configs/toy/mimdet_mask_rcnn_fpn_sr_0p5_toy.py",
    "CONFIG.py": "configs/toy/mimdet_mask_rcnn_fpn_sr_0p5_toy.py",
    "PORT": "29500",
    "N": "2",
    "PHOTOS": "docs",
    "DIR": "docs",
}
# How the documents write what any command line may have.
_OF_ANY_KEY = {"key=value", "+key=value", "key=v", "[options]", "[key=value", "preflight=False"}

_COMMAND = re.compile(r"(?:python|torchrun|make|pip|git|cd|rm|mimdet(?= [a-z])) ")
_SECTIONS = "train|model|dataloader|optimizer|lr_multiplier|mae_checkpoint|imagenet|toy"
_KEY = re.compile(rf"(\+?)((?:{_SECTIONS})(?:\.[\w*]+)+)(?:=(.*))?", re.DOTALL)
_NEXT_KEY = re.compile(r"(\+?)(\.\w[\w.]*)(?:=(.*))?", re.DOTALL)  # `.b` after `a.x` means `a.b`
_FILE_NAME = re.compile(r"\S*\.(?:json|md|pkl|pth|py|yaml)")
_LAST_PART = re.compile(r"(\+?)([a-z_]\w*)=(.+)", re.DOTALL)


@dataclass(frozen=True)
class Override:
    """A key of a config in a document; `value` is None where only the key is named."""

    key: str
    value: str | None
    is_new: bool  # written as `+key=value`

    @property
    def text(self) -> str:
        """As it is typed."""
        return f"{'+' * self.is_new}{self.key}={self.value}"


@dataclass(frozen=True)
class Document:
    """A file with its text: Markdown, or the docstrings of Python code."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        """The path from the root of the repository."""
        return str(self.path.relative_to(REPOSITORY))

    @property
    def code(self) -> list[str]:
        """The pieces of code in the text: indented or fenced lines, and what backticks enclose."""
        text = re.sub(r"\\\n\s*", "", self.text)
        text = re.sub(r"```python\n.*?```", "", text, flags=re.DOTALL)  # run by a test of its own
        blocks = r"^ {4,}(?![\s*|-])(.+)$" if self.path.suffix == ".md" else r"^ *(\S.*)$"
        lines = re.findall(blocks, text, flags=re.MULTILINE)
        lines = [line for line in lines if self.path.suffix == ".md" or _COMMAND.match(line)]
        inline = re.findall(r"(?<!`)(`{1,2})(?!`)(.+?)\1", text, flags=re.DOTALL)
        return lines + [" ".join(code.split()) for _, code in inline]

    def commands(self) -> list[list[str]]:
        """The words of each command; "(the same)" is the config of the document."""
        found = []
        for code in self.code:
            for command in code.split(" && "):
                # in a docstring a sentence may begin with "make"
                if _COMMAND.match(command) and (self.path.suffix == ".md" or ".py" in command):
                    command = command.replace("(the same)", self.name)
                    words = shlex.split(command, comments=True)
                    words = [w for w in words if w not in _OF_ANY_KEY and w != "...]"]
                    found.append([PLACEHOLDERS.get(word, word) for word in words])
        return found

    def overrides(self) -> list[Override]:
        """The keys outside commands; those of which only the last part is given have no dot."""
        found, previous = [], ""
        for code in self.code:
            if _COMMAND.match(code) or code in _OF_ANY_KEY or _is_call(code):
                continue
            for word in _words(code):
                if _FILE_NAME.fullmatch(word) and "=" not in word:
                    continue
                if match := _KEY.fullmatch(word):
                    previous = key = match[2]
                elif previous and (match := _NEXT_KEY.fullmatch(word)):
                    key = previous.rpartition(".")[0] + match[2]
                elif match := self.path.name == "README.md" and _LAST_PART.fullmatch(word):
                    key = match[2]
                else:
                    continue
                found.append(Override(key, match[3] or None, is_new=bool(match[1])))
        return found

    def assignments(self) -> list[str]:
        """Statements that a config may hold, `key = f(...)`."""
        return [code for code in self.code if _KEY.match(code) and _is_call(code)]

    @property
    def configs(self) -> list[Path]:
        """The configs that it speaks of: itself, those beside it, those that it names; or all."""
        folder = self.path.parent
        if folder.parent != REPOSITORY / "configs" or folder.name == "common":
            return FILES
        named = re.findall(r"configs/\w+", self.text)
        folders = {folder, *(REPOSITORY / name for name in named)}
        beside = [path for path in FILES if path.parent in folders]
        return [self.path] if self.path in FILES and not named else beside


def _is_call(code: str) -> bool:
    try:
        (statement,) = ast.parse(code).body
    except (SyntaxError, ValueError):
        return False
    return isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call)


def _words(code: str) -> list[str]:
    try:
        return shlex.split(code.rstrip("."))
    except ValueError:  # a quotation mark of prose or of Python
        return code.split()


def _docstrings(path: Path) -> str:
    """All docstrings of a file, and the text below the help of its command line."""
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    texts = [ast.get_docstring(n) or "" for n in ast.walk(tree) if isinstance(n, documented)]
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EPILOG":
            texts.append(ast.literal_eval(node.value))
    return "\n\n".join(texts)


def documents() -> list[Document]:
    """Everything that a user may read and type from."""
    markdown = [path for pattern in _MARKDOWN for path in sorted(REPOSITORY.glob(pattern))]
    python = [path for pattern in _PYTHON for path in sorted(REPOSITORY.glob(pattern))]
    return [Document(path, path.read_text()) for path in markdown] + [
        Document(path, _docstrings(path)) for path in python
    ]
