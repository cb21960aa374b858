"""The same suite against the store in a folder and the one in Blob storage."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import ClassVar

import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient

from shared.adapters.blob_bundles import BlobBundles
from shared.adapters.file_bundles import FileBundles
from shared.domain.bundle import bundle_digest, open_bundle
from shared.domain.bundle_manifest import FILES, MANIFEST, MODEL, canonical_json
from shared.domain.bundle_pointer import Pointed, Pointer, Role
from shared.domain.errors import BrokenInvariant, Conflict, InvalidInput, NotFound, Transient
from shared.ports.models import BundleStore
from tests.conftest import free_ports
from tests.fakes.bundles import golden_files

NOW_US = 1_700_000_000_000_000


@pytest.fixture
def container(storage: str) -> Iterator[ContainerClient]:
    with BlobServiceClient.from_connection_string(storage, retry_total=0) as service:
        client = service.create_container(f"test-{uuid.uuid4().hex}")
        yield client
        client.delete_container()


@pytest.fixture(params=["folder", "blob"])
def another(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], BundleStore]:
    """Makes stores of the same place."""
    if request.param == "folder":
        return lambda: FileBundles(tmp_path / "store")
    client: ContainerClient = request.getfixturevalue("container")
    return lambda: BlobBundles(client)


@pytest.fixture
def store(another: Callable[[], BundleStore]) -> BundleStore:
    return another()


@cache
def second_files() -> dict[str, bytes]:
    """The recorded bundle under another name, so that it has another digest."""
    files = golden_files()
    return files | {MANIFEST: files[MANIFEST].replace(b'"name":"golden"', b'"name":"second"')}


def change(role: Role, digest: str | None, number: int) -> Pointer:
    return Pointer(role, digest, number, NOW_US + number, "a person", f"change {number}")


def test_an_empty_store_has_nothing(store: BundleStore) -> None:
    assert store.digests() == []
    for role in Role:
        assert store.pointer(role).pointer is None
        assert store.history(role) == []
    for read in (store.get, store.manifest):
        for digest in ("0" * 64, "../../secret", ""):
            with pytest.raises(NotFound, match="digest"):
                read(digest)


def test_a_bundle_is_found_under_its_digest_as_it_was(store: BundleStore) -> None:
    digest = store.put(golden_files())
    assert digest == bundle_digest(golden_files()[MANIFEST])
    assert store.get(digest) == golden_files()
    assert store.manifest(digest) == golden_files()[MANIFEST]
    assert open_bundle(store.get(digest), digest).digest == digest
    other = store.put(second_files())
    assert store.digests() == sorted([digest, other])
    assert store.get(digest) == golden_files()


def test_keeping_a_bundle_again_changes_nothing(store: BundleStore) -> None:
    digest = store.put(golden_files())
    assert store.put(golden_files()) == digest
    assert store.digests() == [digest]


def test_what_no_reader_would_open_is_not_kept(store: BundleStore) -> None:
    with pytest.raises(BrokenInvariant, match="damaged"):
        store.put(golden_files() | {MODEL: b"x"})
    with pytest.raises(BrokenInvariant, match="lacks"):
        store.put({MANIFEST: golden_files()[MANIFEST]})
    assert store.digests() == []


def test_many_writers_of_one_bundle_agree(another: Callable[[], BundleStore]) -> None:
    with ThreadPoolExecutor(4) as pool:
        digests = list(pool.map(lambda _: another().put(golden_files()), range(4)))
    assert len(set(digests)) == 1
    assert another().get(digests[0]) == golden_files()


def test_a_part_is_given_and_every_state_is_kept(store: BundleStore) -> None:
    first, second = store.put(golden_files()), store.put(second_files())
    pointed = store.pointer(Role.CHAMPION)
    states = [change(Role.CHAMPION, digest, number) for number, digest in enumerate((first, second, first, None), 1)]
    for state in states:
        pointed = store.point(state, pointed.tag)
        assert pointed.pointer == state
        assert store.pointer(Role.CHAMPION) == pointed
    assert store.history(Role.CHAMPION) == states
    assert store.pointer(Role.CHALLENGER) == Pointed(None, "")


def test_parts_are_given_independently(store: BundleStore) -> None:
    digest = store.put(golden_files())
    for role in Role:
        store.point(change(role, digest, 1), "")
    assert {role: store.pointer(role).digest for role in Role} == dict.fromkeys(Role, digest)


def test_a_change_from_an_older_state_changes_nothing(store: BundleStore) -> None:
    digest = store.put(golden_files())
    before = store.pointer(Role.CHAMPION)
    now = store.point(change(Role.CHAMPION, digest, 1), before.tag)
    for number in (1, 2):
        with pytest.raises(Conflict, match="has changed"):
            store.point(change(Role.CHAMPION, None, number), before.tag)
    with pytest.raises(InvalidInput, match="must be 2"):
        store.point(change(Role.CHAMPION, None, 3), now.tag)
    assert store.pointer(Role.CHAMPION) == now
    assert len(store.history(Role.CHAMPION)) == 1


def test_a_part_is_not_given_to_a_bundle_that_is_not_there(store: BundleStore) -> None:
    with pytest.raises(NotFound, match="names no bundle"):
        store.point(change(Role.CHAMPION, "0" * 64, 1), "")
    assert store.pointer(Role.CHAMPION).pointer is None


def test_of_writers_at_once_one_wins_and_no_state_is_lost(another: Callable[[], BundleStore]) -> None:
    digest = another().put(golden_files())
    rounds = 5
    for number in range(1, rounds + 1):
        tag = another().pointer(Role.CHAMPION).tag

        def attempt(author: int, number: int = number, tag: str = tag) -> bool:
            state = Pointer(Role.CHAMPION, digest, number, NOW_US, f"writer {author}", "race")
            try:
                another().point(state, tag)
            except Conflict:
                return False
            return True

        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(attempt, range(4))) == 1
    states = another().history(Role.CHAMPION)
    assert [state.number for state in states] == list(range(1, rounds + 1))
    assert another().pointer(Role.CHAMPION).pointer == states[-1]


def test_a_half_uploaded_bundle_is_not_there_until_it_is_completed(container: ContainerClient) -> None:
    store = BlobBundles(container)
    files = golden_files()
    digest = bundle_digest(files[MANIFEST])
    for name in FILES[:3]:
        container.upload_blob(f"bundles/{digest}/{name}", files[name])
    assert store.digests() == []
    with pytest.raises(NotFound):
        store.get(digest)
    with pytest.raises(NotFound):
        store.point(change(Role.CHAMPION, digest, 1), "")
    assert store.put(files) == digest
    assert store.get(digest) == files


def test_a_file_that_somebody_removed_is_missing_from_what_is_read(container: ContainerClient) -> None:
    store = BlobBundles(container)
    digest = store.put(golden_files())
    container.delete_blob(f"bundles/{digest}/{MODEL}")
    with pytest.raises(BrokenInvariant, match=f"lacks {MODEL}"):
        open_bundle(store.get(digest), digest)


def test_other_files_at_a_digest_are_never_overwritten(container: ContainerClient, tmp_path: Path) -> None:
    files = golden_files()
    digest = bundle_digest(files[MANIFEST])
    container.upload_blob(f"bundles/{digest}/{MODEL}", b"foreign")
    with pytest.raises(BrokenInvariant, match=f"another {MODEL} stands"):
        BlobBundles(container).put(files)
    assert container.download_blob(f"bundles/{digest}/{MODEL}").readall() == b"foreign"
    folder = tmp_path / "bundles" / digest
    folder.mkdir(parents=True)
    (folder / MODEL).write_bytes(b"foreign")
    with pytest.raises(BrokenInvariant, match="stands where bundle"):
        FileBundles(tmp_path).put(files)
    assert (folder / MODEL).read_bytes() == b"foreign"


def test_a_writer_that_stopped_after_the_pointer_leaves_a_whole_history(container: ContainerClient) -> None:
    store = BlobBundles(container)
    digest = store.put(golden_files())
    first = store.point(change(Role.CHAMPION, digest, 1), "")
    container.delete_blob("history/champion/00000001.json")  # as if it had not come to writing it
    assert store.history(Role.CHAMPION) == [first.pointer]
    second = store.point(change(Role.CHAMPION, None, 2), first.tag)
    assert store.history(Role.CHAMPION) == [first.pointer, second.pointer]


def test_a_change_whose_answer_was_lost_is_recognised_when_it_is_repeated(container: ContainerClient) -> None:
    store = BlobBundles(container)
    digest = store.put(golden_files())
    states = [change(Role.CHAMPION, digest, 1), change(Role.CHAMPION, None, 2)]
    made = store.point(states[0], "")

    class Late(BlobBundles):
        """Sees, at its first look, the role as it was before its own change arrived."""

        before: ClassVar[list[Pointed]] = []

        def pointer(self, role: Role) -> Pointed:
            return self.before.pop() if self.before else super().pointer(role)

    late = Late(container)
    late.before.append(Pointed(None, ""))
    assert late.point(states[0], "") == made
    last = store.point(states[1], made.tag)
    late.before.append(made)
    assert late.point(states[1], made.tag) == last
    late.before.append(made)
    with pytest.raises(Conflict):
        late.point(change(Role.CHAMPION, digest, 2), made.tag)
    assert store.history(Role.CHAMPION) == states


def test_a_writer_that_stopped_half_way_leaves_nothing_in_the_folder(tmp_path: Path) -> None:
    store = FileBundles(tmp_path)
    (tmp_path / "bundles" / ".incoming-x").mkdir(parents=True)
    (tmp_path / "bundles" / ".incoming-x" / MANIFEST).write_bytes(b"{}")
    assert store.digests() == []
    digest = store.put(golden_files())
    assert store.digests() == [digest]
    assert sorted(path.name for path in (tmp_path / "bundles").iterdir()) == sorted([".incoming-x", digest])
    ordinary = tmp_path / "ordinary"
    ordinary.mkdir()
    assert (tmp_path / "bundles" / digest).stat().st_mode == ordinary.stat().st_mode  # for whoever may read the folder


def test_a_pointer_that_cannot_be_read_is_said_to_be_broken(container: ContainerClient, tmp_path: Path) -> None:
    container.upload_blob("pointers/champion.json", canonical_json({"role": "champion"}))
    (tmp_path / "pointers" / "champion").mkdir(parents=True)
    (tmp_path / "pointers" / "champion" / "00000001.json").write_bytes(b"{")
    stores: tuple[BundleStore, ...] = (BlobBundles(container), FileBundles(tmp_path))
    for store in stores:
        with pytest.raises(BrokenInvariant):
            store.pointer(Role.CHAMPION)


def test_a_missing_container_is_a_broken_installation_and_a_silent_service_passes(storage: str) -> None:
    with BlobServiceClient.from_connection_string(storage, retry_total=0) as service:
        store = BlobBundles(service.get_container_client("not-there"))
        for call in (lambda: store.pointer(Role.CHAMPION), lambda: store.get("0" * 64), store.digests):
            with pytest.raises(BrokenInvariant, match="does not exist"):
                call()
    port = free_ports(1)[0]
    silent = storage.replace(
        storage.partition("BlobEndpoint=")[2].partition("/devstore")[0], f"http://127.0.0.1:{port}"
    )
    with BlobServiceClient.from_connection_string(silent, retry_total=0) as service:
        store = BlobBundles(service.get_container_client("models"))
        with pytest.raises(Transient):
            store.pointer(Role.CHAMPION)
        with pytest.raises(Transient):
            store.put(golden_files())


def test_errors_of_the_file_system_become_the_trees(tmp_path: Path) -> None:
    (tmp_path / "bundles").write_bytes(b"a file where a folder belongs")
    with pytest.raises(Transient):
        FileBundles(tmp_path).put(golden_files())
