"""Checkpoints at addresses, from a server of this machine."""

import functools
import hashlib
import http.server
import io
import threading

import pytest
import torch
from torch import nn

from mimdet.checkpoint.address import local_file
from mimdet.checkpoint.start import StartingWeights, load_starting_weights
from mimdet.checkpoint.strict import StrictCheckpointer


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A folder, its address, and the requests that were made; the cache is empty."""
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "served"
    folder.mkdir()
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            requests.append(self.path)

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()


def saved(model: nn.Module) -> bytes:
    file = io.BytesIO()
    torch.save({"model": model.state_dict()}, file)
    return file.getvalue()


def model(value: float = 0.0) -> nn.Module:
    built = nn.Sequential(nn.Linear(2, 2))
    nn.init.constant_(built[0].weight, value)
    nn.init.zeros_(built[0].bias)
    return built


@pytest.mark.parametrize("has_hash", [True, False])
def test_starting_weights_and_checkpoints_are_fetched_once(server, has_hash):
    folder, address, requests = server
    content = saved(model(3.0))
    name = f"a-{hashlib.sha256(content).hexdigest()[:8]}.pth" if has_hash else "a.pth"
    (folder / name).write_bytes(content)
    started, loaded = model(), model()
    load_starting_weights(started, [StartingWeights(path=f"{address}/{name}", to="")])
    StrictCheckpointer(loaded).load(f"{address}/{name}")
    assert started[0].weight[0, 0] == loaded[0].weight[0, 0] == 3.0
    assert requests == [f"/{name}"]


@pytest.mark.parametrize("key", ["mae_checkpoint.path", "train.init_checkpoint"])
def test_a_file_with_another_hash_than_its_name_tells_is_refused_and_not_kept(server, key):
    folder, address, requests = server
    (folder / "a-00000000.pth").write_bytes(saved(model(3.0)))
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"begins with 00000000, .* \({key}\), got \w{{64}};"):
            if key.startswith("train"):
                StrictCheckpointer(model()).load(f"{address}/a-00000000.pth")
            else:
                entries = [StartingWeights(path=f"{address}/a-00000000.pth", to="")]
                load_starting_weights(model(), entries, key_of=lambda _: key)
    assert len(requests) == 2


def test_what_cannot_be_fetched_is_named_with_the_key(server):
    _, address, _ = server
    with pytest.raises(OSError, match=r"/b.pth cannot be fetched \(key\): HTTP Error 404"):
        local_file(f"{address}/b.pth", "key")


def test_a_page_at_an_address_is_no_checkpoint(server):
    folder, address, _ = server
    (folder / "a.pth").write_text("<html>")
    with pytest.raises(ValueError, match=rf"{address}/a.pth must be .* but it is a web page"):
        load_starting_weights(model(), [StartingWeights(path=f"{address}/a.pth", to="")])


def test_a_path_is_taken_as_it_is():
    assert local_file("some/file-00000000.pth", "key") == "some/file-00000000.pth"
