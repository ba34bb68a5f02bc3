import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from detectron2.structures.boxes import as_index, moved


class Instances:
    """The instances of one image: fields of equal length, one entry per instance.

    Fields are read and set as attributes: `instances.gt_boxes = Boxes(...)`. Any value with a
    length can be a field; what indexes, moves and joins instances does so with each field.

    Args:
        image_size: (height, width) of the image.
        **kwargs: fields to set.

    Raises:
        AssertionError: if a field does not have the length of the fields before it.
    """

    def __init__(self, image_size: tuple[int, int], **kwargs: Any) -> None:
        self._image_size = image_size
        self._fields: dict[str, Any] = {}
        for name, value in kwargs.items():
            self.set(name, value)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the image."""
        return self._image_size

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self.set(name, value)

    def __getattr__(self, name: str) -> Any:
        # copy and pickle ask for attributes of an object that has no `_fields` yet.
        if name == "_fields" or name not in self._fields:
            raise AttributeError(f"Instances have no field {name!r}")
        return self._fields[name]

    def set(self, name: str, value: Any) -> None:
        """Set the field `name`.

        Raises:
            AssertionError: if `value` does not have the length of the existing fields.
        """
        length = len(value)
        if self._fields:
            assert length == len(self), (
                f"Adding a field of length {length} to Instances of length {len(self)} is not "
                f"possible (field {name!r}); all fields have one entry per instance"
            )
        self._fields[name] = value

    def has(self, name: str) -> bool:
        """Whether there is a field `name`."""
        return name in self._fields

    def get(self, name: str) -> Any:
        """The field `name`; KeyError if there is none."""
        return self._fields[name]

    def remove(self, name: str) -> None:
        """Delete the field `name`; KeyError if there is none."""
        del self._fields[name]

    def get_fields(self) -> dict[str, Any]:
        """The fields by name: the dict itself, not a copy."""
        return self._fields

    def to(self, *args: Any, **kwargs: Any) -> "Instances":
        """New instances, on which `.to` was called for each field that has it."""

        def to(value: Any) -> Any:
            if isinstance(value, Tensor):
                return moved(value, *args, **kwargs)
            return value.to(*args, **kwargs) if hasattr(value, "to") else value

        fields = {name: to(value) for name, value in self._fields.items()}
        return Instances(self._image_size, **fields)

    def pin_memory(self) -> "Instances":
        """New instances in page-locked memory, from which a copy to the GPU lets the host go on.

        torch's `DataLoader` calls this. Polygons, which stay on the CPU, stay where they are.
        """
        pinned = {
            name: value.pin_memory() if hasattr(value, "pin_memory") else value
            for name, value in self._fields.items()
        }
        return Instances(self._image_size, **pinned)

    def __len__(self) -> int:
        for value in self._fields.values():
            return len(value)
        raise NotImplementedError("Instances without fields have no length; set a field first")

    def __iter__(self) -> Any:
        # Without this method Python would iterate by `__getitem__`, which never says what an
        # element is.
        raise NotImplementedError("Instances cannot be iterated; iterate over a field or an index")

    def __getitem__(self, item: Any) -> "Instances":
        """Select instances.

        Args:
            item: an index, which gives instances of length 1; or whatever indexes all fields: a
                slice, a tensor of indices or bools.

        Raises:
            IndexError: for an index out of range.
        """
        index = as_index(item)
        if index is not None:
            if not -len(self) <= index < len(self):
                raise IndexError(f"index {index} is out of range for {len(self)} instances")
            # A slice, under which every kind of field keeps its length, lists among them.
            item = slice(index % len(self), index % len(self) + 1)
        return Instances(
            self._image_size, **{name: value[item] for name, value in self._fields.items()}
        )

    @staticmethod
    def cat(instance_lists: Sequence["Instances"]) -> "Instances":
        """Join instances of one image.

        Args:
            instance_lists: at least one; all with the fields of the first.

        Returns:
            New instances, or the single element itself.

        Raises:
            AssertionError: for an empty list, other objects, or different image sizes.
            ValueError: if values of a field can not be joined: they must be tensors, lists, or
                have a class method `cat`.
        """
        assert len(instance_lists) > 0 and all(isinstance(i, Instances) for i in instance_lists), (
            f"Instances.cat needs a list of Instances that is not empty, got {instance_lists!r}"
        )
        if len(instance_lists) == 1:
            return instance_lists[0]
        sizes = [i.image_size for i in instance_lists]
        assert all(tuple(size) == tuple(sizes[0]) for size in sizes), (
            f"only instances of one image size can be joined, got {sizes}"
        )
        return Instances(
            sizes[0],
            **{
                name: cat_values(name, [i.get(name) for i in instance_lists])
                for name in instance_lists[0].get_fields()
            },
        )

    def __repr__(self) -> str:
        height, width = self._image_size
        fields = ", ".join(f"{name}: {value}" for name, value in self._fields.items())
        return (
            f"Instances(num_instances={len(self) if self._fields else 0}, image_height={height}, "
            f"image_width={width}, fields=[{fields}])"
        )


def cat_values(name: str, values: list[Any]) -> Any:
    """Join the values that the field `name` has in several instances."""
    kind = type(values[0])
    if isinstance(values[0], Tensor):
        return torch.cat(values, dim=0)
    if isinstance(values[0], list):
        return list(itertools.chain(*values))
    if hasattr(kind, "cat"):
        return kind.cat(values)
    raise ValueError(
        f"values of a field must be tensors, lists or have a class method cat to be joined, "
        f"got {kind.__name__} (field {name!r})"
    )
