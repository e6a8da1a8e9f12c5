"""Which memory may be given back while TensorFlow's library is loaded: the part that a slip would turn into a crash."""

from tfs_helpers.embedded.graphs.library import _unwritten

NAME = "/lib/libtensorflow_cc.so.2"


def smaps(*mappings: tuple[int, int, str, int, str, int]) -> str:
    """The kernel's text for mappings of (start, end, rights, offset, file, pages written to in kB)."""
    return "".join(
        f"{start:08x}-{end:08x} {rights} {offset:08x} fe:00 1234                       {name}\n"
        f"Size:     100 kB\nRss:    50 kB\nAnonymous: {written:8d} kB\nVmFlags: rd mr mw me\n"
        for start, end, rights, offset, name, written in mappings
    )


HEAD = (0x1000, 0x5000, "r--p", 0, NAME, 0)
CODE = (0x5000, 0x9000, "r-xp", 0x4000, NAME, 0)
RELOCATED = (0x9000, 0xA000, "r--p", 0x8000, NAME, 4)
DATA = (0xA000, 0xB000, "rw-p", 0x9000, NAME, 0)
CONSTANTS = (0xB000, 0xC000, "r--p", 0xA000, NAME, 0)


def test_while_it_loads_code_and_what_comes_before_it() -> None:
    found = _unwritten(smaps(HEAD, CODE, CONSTANTS, DATA), [NAME], settled=False)
    assert found == [range(0x1000, 0x5000), range(0x5000, 0x9000)]


def test_the_first_map_of_the_whole_file_is_left_alone() -> None:
    whole = (0x1000, 0xC000, "r--p", 0, NAME, 0)
    assert _unwritten(smaps(whole), [NAME], settled=False) == []
    assert _unwritten(smaps((0x1000, 0xC000, "r-xp", 0, NAME, 0)), [NAME], settled=False) == []
    split = (0x1000, 0x5000, "r--p", 0, NAME, 0)
    assert _unwritten(smaps(split, DATA), [NAME], settled=False) == []


def test_afterwards_all_that_cannot_be_written_and_never_was() -> None:
    found = _unwritten(smaps(HEAD, CODE, RELOCATED, DATA, CONSTANTS), [NAME], settled=True)
    assert found == [range(0x1000, 0x5000), range(0x5000, 0x9000), range(0xB000, 0xC000)]


def test_other_files_and_memory_without_a_file_are_left_alone() -> None:
    stranger = (0x5000, 0x9000, "r-xp", 0x4000, "/lib/libc.so.6", 0)
    nameless = "0000d000-0000e000 r-xp 00001000 00:00 0 \nAnonymous:            0 kB\n"
    assert _unwritten(smaps(stranger) + nameless + smaps(stranger), [NAME], settled=True) == []
