"""Names of datasets: how to load them (DatasetCatalog), what is known of them (MetadataCatalog)."""

import builtins
from collections import UserDict
from collections.abc import Callable
from typing import Any

__all__ = ["DatasetCatalog", "Metadata", "MetadataCatalog"]


class Metadata:
    """Facts about one dataset that do not change while a program runs, kept as attributes.

    Usual attributes: `thing_classes` (names by contiguous class id),
    `thing_dataset_id_to_contiguous_id` (category id of the file -> 0-based class id),
    `json_file`, `image_root`, `evaluator_type` ("coco" or "lvis").

    An attribute keeps its first value: setting it to a different one is an error, because
    whoever read the first value would go on with it.

    Args:
        **values: initial attributes; `name` is "N/A" unless given.

    Raises:
        AssertionError: an attribute is set to a different value.
        AttributeError: an attribute that was never set is read.
    """

    def __init__(self, **values: Any):
        vars(self).update({"name": "N/A"} | values)

    def __getattr__(self, key: str) -> Any:
        values = vars(self)  # empty while the object is being copied or unpickled
        raise AttributeError(
            f"metadata of dataset {values.get('name')!r} has no attribute {key!r}; "
            f"it has {sorted(values)}"
        )

    def __setattr__(self, key: str, value: Any) -> None:
        self.set(**{key: value})

    def set(self, **values: Any) -> "Metadata":
        """Set several attributes, all or none, and return self.

        Raises:
            AssertionError: one of them already has a different value.
        """
        new = {key: value for key, value in values.items() if not hasattr(self, key)}
        for key in values.keys() - new.keys():
            current = getattr(self, key)
            assert current == values[key], (
                f"metadata of dataset {self.name!r} keeps the first value of {key!r}, which is "
                f"{current!r}; got {values[key]!r}. Register the other data under another name"
            )
        vars(self).update(new)
        return self

    def get(self, key: str, default: Any = None) -> Any:
        """The attribute `key`, or `default` where it was never set."""
        return getattr(self, key, default)

    def as_dict(self) -> dict[str, Any]:
        """All attributes by name, as a new dict."""
        return dict(vars(self))

    def __repr__(self) -> str:
        return f"Metadata({', '.join(f'{k}={v!r}' for k, v in self.as_dict().items())})"


class _Catalog(UserDict):
    def remove(self, name: str) -> None:
        """Forget `name`; KeyError where it is unknown."""
        self.pop(name)

    # Within the class, `list` alone is this method.
    def list(self) -> builtins.list[str]:
        """The known names, in the order in which they came."""
        return [*self]


class _DatasetCatalog(_Catalog):
    """Dataset name -> function without arguments that loads it.

    The function returns a list of standard dataset dicts (or a torch Dataset) and gives the same
    content at each call. It runs at each `get`: nothing is cached here.
    """

    def register(self, name: str, func: Callable[[], Any]) -> None:
        """Let `get(name)` call `func`.

        Raises:
            AssertionError: `func` cannot be called, or the name is taken.
        """
        assert callable(func), (
            f"dataset {name!r} must be registered with a function that loads it, got {func!r}"
        )
        assert name not in self, (
            f"dataset {name!r} is already registered; choose another name or call "
            "DatasetCatalog.remove first"
        )
        self[name] = func

    def get(self, name: str) -> Any:
        """Load the dataset `name`.

        Raises:
            KeyError: no such dataset; the message lists those that exist.
        """
        if name not in self:
            raise KeyError(
                f"dataset {name!r} is not registered; registered are: {', '.join(self) or 'none'}"
            )
        return self[name]()


class _MetadataCatalog(_Catalog):
    """Dataset name -> its Metadata, one object per name in the whole program."""

    def get(self, name: str) -> Metadata:
        """The metadata of `name`, created empty at the first call."""
        assert name, "metadata needs the name of a dataset, got an empty one"
        if name not in self:
            self[name] = Metadata(name=name)
        return self[name]


DatasetCatalog = _DatasetCatalog()
MetadataCatalog = _MetadataCatalog()
