"""Hostile pickles: their content is reported, never executed, and takes little memory."""

from __future__ import annotations

import contextlib
import copyreg
import marshal
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stpredict.models._deepspot import _inert, _restricted
from stpredict.models._deepspot._archive import Archive
from stpredict.models._deepspot._inert import Foreign, Name
from stpredict.models._deepspot._restricted import read_module

GOLDEN = Path(__file__).parents[1] / "golden" / "deepspot_release"
SPOT = GOLDEN / "spot_final_model.pkl"
SPOT_PICKLE = zipfile.ZipFile(SPOT).read("spot_final_model/data.pkl")
PROTO = b"\x80\x02"


def archive(path, data, *, storages=None, compression=zipfile.ZIP_STORED, records=None):
    """A zip as torch writes it, around any pickle."""
    file = path / "final_model.pkl"
    with zipfile.ZipFile(file, "w", compression) as zipped:
        for name, content in {"data.pkl": data, "version": b"3\n", **(records or {})}.items():
            zipped.writestr(f"x/{name}", content)
        for key, content in (storages or {}).items():
            zipped.writestr(f"x/data/{key}", content)
    return file


def text(value):
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def number(value):
    return b"\x8a\x08" + struct.pack("<q", value)


def storage(kind="FloatStorage", key="0", n=2, tag="storage"):
    parts = text(tag) + name("torch", kind) + text(key) + text("cpu")
    return b"(" + parts + number(n) + b"tQ"


def tensor(size, stride, *, n=2, offset=0):
    def sizes(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    hooks = name("collections", "OrderedDict") + b")R"
    arguments = storage(n=n) + number(offset) + sizes(size) + sizes(stride) + b"\x89" + hooks
    return PROTO + name("torch._utils", "_rebuild_tensor_v2") + b"(" + arguments + b"tR."


def dtype(code="f8", order="<"):
    state = b"(K\x03" + text(order) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    return name("numpy", "dtype") + text(code) + b"\x89\x88\x87R" + state


def array(shape=(1,), code="f8", data="\0" * 8):
    started = name("numpy._core.multiarray", "_reconstruct") + name("numpy", "ndarray")
    started += b"K\x00\x85" + name("_codecs", "encode") + text("b") + text("latin1") + b"\x86R\x87R"
    sizes = b"(" + b"".join(map(number, shape)) + b"t"
    values = name("_codecs", "encode") + text(data) + text("latin1") + b"\x86R"
    return PROTO + started + b"(K\x01" + sizes + dtype(code) + b"\x89" + values + b"tb."


class Reduced:
    """Pickled as a call."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


def touching(canary):
    """Pickles that would make a file, if they were unpickled."""
    command, source = f"touch '{canary}'", f"__import__('pathlib').Path({str(canary)!r}).touch()"
    code = marshal.dumps(compile(source, "lambda", "eval"))
    system = Reduced(os.system, command)
    function = name("types", "FunctionType") + pickle.dumps(Reduced(marshal.loads, code), 2)[2:-1]
    build = name("torch.nn.modules.linear", "Linear") + b")\x81"
    return {
        "os.system": pickle.dumps(system, 2),
        "eval": pickle.dumps(Reduced(eval, source), 2),
        "exec": pickle.dumps(Reduced(exec, source), 2),
        "nested reduce": pickle.dumps(
            Reduced(getattr, Reduced(__import__, "os"), "system"), 2
        )[:-1]
        + text(command)
        + b"\x85R.",
        "lambda": PROTO + function + b"}\x86R)R.",
        "protocol 4": pickle.dumps(system, 4),
        "dotted name": b"\x80\x04\x8c\x05torch\x8c\x09os.system\x93" + text(command) + b"\x85R.",
        "dotted name of an allowed module": b"\x80\x04\x8c\x17torch.nn.modules.linear"
        + b"\x8c\x0ctorch.os.sys\x93.",
        "in a list": pickle.dumps([1, {"a": (system,)}], 2),
        "as an attribute of an allowed object": PROTO + build + pickle.dumps({"a": system}, 2)[2:-1]
        + b"b.",
        "as the hooks of a tensor": PROTO
        + name("torch._utils", "_rebuild_parameter")
        + b"N\x89"
        + pickle.dumps(system, 2)[2:-1]
        + b"\x87R.",
        "protocol 0": pickle.dumps(system, 0),
        "INST": f"(S\"{command}\"\nios\nsystem\n.".encode(),
        "OBJ": b"(" + name("os", "system") + text(command) + b"o.",
        "NEWOBJ_EX": b"\x80\x04" + name("subprocess", "Popen") + text(command) + b"\x85}"
        + text("shell") + b"\x88s\x92.",
        "persistent id": PROTO + pickle.dumps(system, 2)[2:-1] + b"Q.",
        "storage type": PROTO + b"(" + text("storage") + name("os", "system") + b"tQ.",
        "after what is asked for": SPOT_PICKLE[:-1] + pickle.dumps(system, 2)[2:],
    }  # fmt: skip


PAYLOADS = sorted(touching("canary"))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_payloads_are_not_executed(tmp_path, payload):
    canary = tmp_path / "canary"
    file = archive(tmp_path, touching(canary)[payload])
    with pytest.raises(ValueError, match="was refused, nothing in it was executed"):
        read_module(file)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        ("os.system", "posix.system|nt.system"),
        ("eval", "__builtin__.eval"),
        ("exec", "__builtin__.exec"),
        ("nested reduce", "__builtin__.__import__"),
        ("lambda", "types.FunctionType"),
        ("protocol 4", "posix.system|nt.system"),
        ("dotted name", "torch.os.system"),
        ("OBJ", "os.system"),
        ("storage type", "os.system"),
    ],
)
def test_foreign_names_are_reported(tmp_path, payload, named):
    with pytest.raises(ValueError, match=f"it names '({named})', unlike published models"):
        read_module(archive(tmp_path, touching(tmp_path / "canary")[payload]))


@pytest.mark.parametrize("payload", ["os.system", "eval", "nested reduce", "lambda", "dotted name"])
def test_payloads_run_in_the_standard_unpickler(tmp_path, payload):
    """Python's own unpickler runs them, so the tests above are meaningful."""
    pickle.loads(touching(tmp_path / "canary")[payload])
    assert (tmp_path / "canary").exists()


def test_extension_registry_is_not_used(tmp_path):
    ran = []
    copyreg.add_extension("os", "system", 240)
    try:
        with pytest.raises(ValueError, match="opcode EXT1, which torch does not write"):
            read_module(archive(tmp_path, PROTO + b"\x82\xf0" + text("true") + b"\x85R."))
    finally:
        copyreg.remove_extension("os", "system", 240)
    assert not ran


LINEAR = name("torch.nn.modules.linear", "Linear")
MODEL = name("deepspot.spot.model", "DeepSpot")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        # a name of another package, or an innocent one that is not needed
        (name("mypackage.model", "DeepSpot") + b")\x81.", "names 'mypackage.model.DeepSpot'"),
        (name("torch.nn.modules.conv", "Conv2d") + b")\x81.", "torch.nn.modules.conv.Conv2d"),
        (name("collections", "Counter") + b")R.", "names 'collections.Counter'"),
        (name("deepspot.spot.model", "DeepSpot.load_from_checkpoint") + b".", "load_from_ch"),
        (name("__builtin__", "getattr.__class__") + b".", "getattr.__class__"),
        # allowed names in uses that no published model has
        (LINEAR + b")R.", "it calls 'torch.nn.modules.linear.Linear'"),
        (LINEAR + b"(K\x01K\x01t\x81.", "an object is used as torch"),
        (LINEAR + b"}b.", "the state of an object"),  # attributes of the class itself
        (LINEAR + b")\x81(N}" + text("__class__") + b"K\x01stb.", "the state of an object"),
        (LINEAR + b")\x81}K\x01K\x01sb.", "the state of an object"),
        (LINEAR + b")\x81}" + text("a") + b"Nsb}" + text("a") + b"Nsb.", "the state of an object"),
        (name("torch", "FloatStorage") + b")\x81.", "makes an object of torch.FloatStorage"),
        (name("torch", "float32") + b")R.", "it calls 'torch.float32'"),
        (b"K\x01)R.", "it calls 'int'"),
        (name("__builtin__", "getattr") + LINEAR + text("__init__") + b"\x86R.", "getattr"),
        (name("__builtin__", "getattr") + MODEL + b")\x81" + text("__class__") + b"\x86R.",
         r"getattr\(…, '__class__'\)"),
        (name("__builtin__", "getattr") + MODEL + b")\x81K\x01\x86R.", "getattr is used"),
        (name("_codecs", "encode") + text("a") + text("zip") + b"\x86R.", "_codecs.encode"),
        (name("_codecs", "encode") + text("a") + b"\x85R.", "damaged at byte"),
        (name("collections", "OrderedDict") + b"]](K\x01K\x02ea\x85R.", "collections.OrderedDict"),
        (name("__builtin__", "set") + b"])a\x85R.", "set is used"),
        (name("deepspot.cell.model", "Operation") + text("rm") + b"\x85R.", "Operation"),
        (b"}))s.", "the key of a dictionary"),
        (b"}(K\x01u.", "shorter"),
        (b"}]K\x01a\x86.", None),
        (text("a") + b"K\x01a.", "APPEND"),
        (text("a") + b"K\x01K\x01s.", "SETITEMS"),
        (b"\x8f()\x90.", "a set is used"),
        # damage
        (b"K\x01K\x02.", "ends with 2 objects"),
        (b".", "ends with 0 objects"),
        (b"(.", "ends with 0 objects"),
        (b"R.", r"damaged at byte 2 \(REDUCE\)"),
        (b"h\x07.", "damaged at byte 2"),
        (b"t.", "damaged at byte 2"),
        (b"K\x01", "pickle exhausted before seeing STOP"),
        (b"\xff.", "unknown"),
        (b"K\x010.", "opcode POP"),
        (b"K\x012.", "opcode DUP"),
        (b"I1\n.", "opcode INT"),
        (b"P1\n.", "opcode PERSID"),
        (LINEAR + b")}\x92.", "opcode NEWOBJ_EX"),
    ],
)  # fmt: skip
def test_anything_torch_does_not_write_is_refused(tmp_path, data, message):
    with pytest.raises(ValueError, match=message or "holds a tuple, expected a module"):
        read_module(archive(tmp_path, PROTO + data))


@pytest.fixture
def bounded():
    """Less than 16 MiB may be allocated meanwhile."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


HUGE = 1 << 38


@pytest.mark.usefixtures("bounded")
class TestClaims:
    """Sizes larger than the file."""

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (PROTO + storage(n=HUGE) + b".", "storage '0' claims .* its record has 8 bytes"),
            (PROTO + storage(n=-1) + b".", "storage '0' claims"),
            (PROTO + storage(n=1) + b".", "storage '0' claims"),
            (PROTO + storage(kind="DoubleStorage") + b".", "storage '0' claims"),
            (PROTO + storage(key="empty", n=0) + b".", "storage 'empty' claims"),
            (PROTO + storage(key="9") + b".", "no storage '9'"),
            (PROTO + storage(key="../data.pkl", n=2) + b".", "no storage '../data.pkl'"),
            (PROTO + storage(key="/etc/passwd", n=2) + b".", "no storage '/etc/passwd'"),
            (PROTO + storage(tag="module") + b".", "a storage is used"),
            (PROTO + b"K\x07Q.", "a storage is used"),
            (PROTO + storage() + b"0" + storage() + b".", "opcode POP"),
            (PROTO + storage() + storage() + b"\x86.", "used by two tensors"),
            (tensor((HUGE,), (1,)), "claims more than the 2 stored elements"),
            (tensor((HUGE, HUGE), (0, 0)), "claims more than the 2"),
            (tensor((2, 2), (0, 0)), "claims more than the 2"),
            (tensor((2,), (HUGE,)), "claims more than the 2"),
            (tensor((2,), (1,), offset=1), "claims more than the 2"),
            (tensor((2,), (1,), offset=-1), "claims more than the 2"),
            (tensor((2,), (-1,)), "_rebuild_tensor_v2 is used"),
            (tensor((0, HUGE), (1, 1)), "_rebuild_tensor_v2 is used"),
            (tensor((1 << 62,), (1,)), "_rebuild_tensor_v2 is used"),
            (tensor((1,) * 9, (1,) * 9), "_rebuild_tensor_v2 is used"),
            (array((HUGE,)), "claims the shape .* for 8 bytes"),
            (array((HUGE, HUGE), data=""), "claims the shape"),
            (array((2,)), "claims the shape"),
            (array(code="O8"), r"numpy.dtype\('O8'\) is refused: numbers are read, objects never"),
            (array(code="O"), "objects never"),
            (array(code="V99999999"), "objects never"),
            (PROTO + b"\x8e" + struct.pack("<Q", HUGE) + b"a.", "bytes"),
            (PROTO + b"B" + struct.pack("<I", 1 << 31) + b"a.", "bytes"),
            (PROTO + b"X" + struct.pack("<I", 1 << 31) + b"a.", "bytes"),
            (PROTO + b"\x8b" + struct.pack("<i", 1 << 30) + b"a.", "bytes|long4"),
            (b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N.", "holds a NoneType"),
        ],
    )
    def test_false_sizes_in_the_pickle_are_refused(self, tmp_path, data, message):
        storages = {"0": np.float32([1, 2]).tobytes(), "empty": b""}
        with pytest.raises(ValueError, match=message):
            read_module(archive(tmp_path, data, storages=storages))

    def test_zip_bomb_is_refused(self, tmp_path):
        file = archive(tmp_path, bytes(1 << 23), compression=zipfile.ZIP_DEFLATED)
        assert file.stat().st_size < 20_000
        tracemalloc.reset_peak()
        with pytest.raises(ValueError, match=r"'x/data.pkl' is compressed .* claims 8,388,608"):
            read_module(file)

    @pytest.mark.parametrize("claim", [1 << 31, 1 << 50])
    def test_records_larger_than_the_file_are_refused(self, tmp_path, claim):
        file = tmp_path / "final_model.pkl"
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as zipped:
            zipped.writestr("x/data.pkl", PROTO + b"N.")
            for record in zipped.infolist():
                record.file_size = record.compress_size = claim
        with pytest.raises(ValueError, match=f"its records claim {claim:,} bytes"):
            read_module(file)

    def test_overlapping_records_are_refused(self, tmp_path):
        file = tmp_path / "final_model.pkl"
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as zipped:
            zipped.writestr("x/data.pkl", PROTO + storage(n=250_000) + b".")
            zipped.writestr("x/data/0", bytes(1_000_000))
            first = zipped.getinfo("x/data/0")
            for key in range(1, 50):  # fifty names for one content
                again = zipfile.ZipInfo(f"x/data/{key}")
                again.file_size = again.compress_size = first.file_size
                again.CRC, again.header_offset = first.CRC, first.header_offset
                zipped.filelist.append(again)
        tracemalloc.reset_peak()
        with pytest.raises(ValueError, match=r"claim 50,000,\d+ bytes, but the whole file has"):
            read_module(file)

    def test_large_pickle_is_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr("stpredict.models._deepspot._archive.MAX_PICKLE", 1000)
        with pytest.raises(ValueError, match="its pickle has 1,003 bytes"):
            read_module(archive(tmp_path, PROTO + b"N" * 1000 + b"."))


@pytest.mark.usefixtures("bounded")
class TestBombs:
    """Small files that would take much memory or time, through the memo or by sheer number."""

    @pytest.fixture(autouse=True)
    def few(self, monkeypatch):
        monkeypatch.setattr(_restricted, "MAX_WORK", 50_000)

    @pytest.mark.parametrize(
        "repeated",
        [
            name("_codecs", "encode") + text("a" * 10_000) + text("latin1") + b"\x86q\x00",
            name("__builtin__", "set") + b"](" + b"K\x01" * 10_000 + b"e\x85q\x00",
        ],
        ids=["encode", "set"],
    )
    def test_repeated_copies_are_refused(self, tmp_path, repeated):
        function = repeated[: repeated.index(b"\n", repeated.index(b"\n") + 1) + 1]
        data = PROTO + repeated + b"R" + (function + b"h\x00R") * 1_000 + b"."
        with pytest.raises(ValueError, match="makes far more objects"):
            read_module(archive(tmp_path, data))

    def test_repeated_states_are_refused(self, tmp_path):
        state = b"}q\x00(" + b"".join(text(f"{i}") + b"N" for i in range(2_000)) + b"u"
        data = PROTO + state + (LINEAR + b")\x81h\x00b") * 1_000 + b"."
        with pytest.raises(ValueError, match="makes far more objects"):
            read_module(archive(tmp_path, data))

    def test_many_objects_are_refused(self, tmp_path):
        with pytest.raises(ValueError, match="makes far more objects"):
            read_module(archive(tmp_path, PROTO + b"}" * 100_000 + b"."))

    def test_exponentially_nested_tuples_are_refused(self, tmp_path):
        data = PROTO + b")" + b"q\x00h\x00\x86" * 200
        with pytest.raises(ValueError, match="holds a tuple, expected a module"):
            read_module(archive(tmp_path, data + b"."))
        with pytest.raises(ValueError, match="the key of a dictionary"):
            read_module(archive(tmp_path, PROTO + b"}" + data[2:] + b"Ns."))

    def test_deep_nesting_is_refused(self, tmp_path):
        data = PROTO + b"]" * 20_000 + b"a" * 19_999 + b"."
        with pytest.raises(ValueError, match="holds a list, expected a module"):
            read_module(archive(tmp_path, data))

    def test_long_history_of_losses_is_accepted(self, tmp_path):
        losses = b"](" + (b"G" + struct.pack(">d", 0.1)) * 100_000 + b"e"
        state = b"}" + text("training_loss") + losses + b"s"
        module = read_module(archive(tmp_path, PROTO + MODEL + b")\x81" + state + b"b."))
        assert len(module.state["training_loss"]) == 100_000


class TestNoArchive:
    def test_plain_pickle_is_refused(self, tmp_path):
        file = tmp_path / "final_model.pkl"
        file.write_bytes(touching(tmp_path / "canary")["os.system"])
        with pytest.raises(
            ValueError, match=r"not a zip archive.*convert it.*torch\.save it again"
        ):
            read_module(file)
        assert not (tmp_path / "canary").exists()

    def test_legacy_file_of_torch_is_refused(self, tmp_path):
        file = tmp_path / "final_model.pkl"
        torch.save(torch.nn.Linear(2, 1), file, _use_new_zipfile_serialization=False)
        with pytest.raises(ValueError, match=r"since torch 1\.6.*can convert it"):
            read_module(file)

    @pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04" + bytes(100), b"\0" * 1000])
    def test_arbitrary_bytes_are_refused(self, tmp_path, content):
        file = tmp_path / "final_model.pkl"
        file.write_bytes(content)
        with pytest.raises(ValueError, match="was refused"):
            read_module(file)

    @pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.999])
    def test_truncated_file_is_refused(self, tmp_path, share):
        file = tmp_path / "final_model.pkl"
        whole = SPOT.read_bytes()
        file.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ValueError, match="damaged or truncated zip archive"):
            read_module(file)

    def test_other_zip_archive_is_refused(self, tmp_path):
        file = tmp_path / "final_model.pkl"
        with zipfile.ZipFile(file, "w") as zipped:
            zipped.writestr("readme.txt", "hello")
        with pytest.raises(ValueError, match=r"not of torch\.save: 0 records"):
            read_module(file)

    def test_two_pickles_are_refused(self, tmp_path):
        file = archive(tmp_path, PROTO + b"N.")
        with zipfile.ZipFile(file, "a") as zipped:
            zipped.writestr("y/data.pkl", b"")
        with pytest.raises(ValueError, match=r"not of torch\.save: 2 records"):
            read_module(file)

    def test_repeated_records_are_refused(self, tmp_path):
        file = archive(tmp_path, PROTO + b"N.")
        with zipfile.ZipFile(file, "a") as zipped, pytest.warns(UserWarning, match="Duplicate"):
            zipped.writestr("x/data.pkl", SPOT_PICKLE)
        with pytest.raises(ValueError, match="1 records of the archive are repeated"):
            read_module(file)

    def test_changed_byte_is_refused(self, tmp_path):
        file = tmp_path / "final_model.pkl"
        file.write_bytes(SPOT.read_bytes().replace(b"phi_spot", b"phi_spat"))
        with pytest.raises(ValueError, match=r"record 'spot_final_model/data\.pkl' is damaged"):
            read_module(file)

    def test_other_byte_order_is_refused(self, tmp_path):
        file = archive(tmp_path, PROTO + b"N.", records={"byteorder": b"big"})
        with pytest.raises(ValueError, match="its byte order is b'big'"):
            read_module(file)

    @pytest.mark.parametrize("saved", [OrderedDict(a=1), [1.0], {"a": torch.ones(2)}])
    def test_objects_other_than_modules_are_refused(self, tmp_path, saved):
        file = tmp_path / "final_model.pkl"
        torch.save(saved, file)
        with pytest.raises(ValueError, match=f"holds a {type(saved).__name__}, expected a module"):
            read_module(file)


def test_names_are_compared_and_never_imported(tmp_path, monkeypatch):
    def imported(*_):
        raise AssertionError("something was imported")

    monkeypatch.setattr("builtins.__import__", imported)
    module = read_module(SPOT)
    monkeypatch.undo()
    assert isinstance(module, Foreign)
    assert module.name == Name("deepspot.spot.model", "DeepSpot")


def test_no_allowed_name_can_run_code():
    dangerous = ("os", "posix", "subprocess", "sys", "importlib", "marshal", "types", "pickle")
    assert not {entry for entry in _inert.ALLOWED if entry.module.split(".")[0] in dangerous}
    assert not {entry for entry in _inert.ALLOWED if "." in entry.name}
    builtin = {
        entry.name for entry in _inert.ALLOWED if entry.module in ("builtins", "__builtin__")
    }
    assert builtin == {"set", "bytes", "getattr"}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_arrays_and_scalars_of_numpy_are_read_exactly(tmp_path, protocol, order):
    values = {
        "float64": np.asarray(np.arange(6.0).reshape(2, 3), order=order),
        "float32": np.float32([1.5, -2]),
        "int64": np.arange(3),
        "bool": np.array([True, False]),
        "swapped": np.arange(3, dtype=">f8"),
        "empty": np.zeros((0, 2)),
    }
    scalars = {"scalar": np.float64(0.1), "count": np.int64(7)}
    data = pickle.dumps({"values": values, "scalars": scalars}, protocol)
    model = MODEL + b")\x81" + data[2:-1] + b"b."
    prefix = data[:2]
    module = read_module(archive(tmp_path, prefix + model.replace(data[:2], b"")))
    for key, expected in values.items():
        read = module.state["values"][key].values
        np.testing.assert_array_equal(read, expected)
        assert read.dtype == expected.dtype
    assert module.state["scalars"] == {key: value.item() for key, value in scalars.items()}


@pytest.mark.parametrize("protocol", [2, 4])
def test_tensors_of_torch_are_read_exactly(tmp_path, protocol):
    layer = torch.nn.Linear(3, 2)
    layer.weight.data = torch.arange(6.0).reshape(3, 2).T  # strided
    layer.register_buffer("halved", torch.ones(2, dtype=torch.bfloat16))
    file = tmp_path / "layer.pkl"
    torch.save(layer, file, pickle_protocol=protocol)
    module = read_module(file)
    assert module.name == Name("torch.nn.modules.linear", "Linear")
    for key, expected in layer._parameters.items():
        torch.testing.assert_close(module.state["_parameters"][key], expected.detach())
    assert module.state["_buffers"]["halved"].dtype == torch.bfloat16


def test_damaged_text_is_refused_without_a_warning():
    with Archive(SPOT) as archived, pytest.raises(ValueError, match=r"opcode|damaged|refused"):
        _restricted._Machine(archived).run(b"S'\\o'\n.")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_to_the_pickle_is_refused_or_harmless(data):
    mutated = bytearray(SPOT_PICKLE)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(mutated) - 1))
        mutated[position] = data.draw(st.integers(0, 255))
    with Archive(SPOT) as archived, contextlib.suppress(ValueError):
        _restricted._Machine(archived).run(bytes(mutated))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damage_to_the_archive_is_refused_or_harmless(tmp_path_factory, data):
    mutated = bytearray(SPOT.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        # most of what zipfile reads stands at the end
        position = data.draw(st.integers(0, 2500).map(lambda back: -1 - back))
        mutated[position] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.getbasetemp() / "mutated.pkl"
    file.write_bytes(mutated)
    message = ""
    try:
        module = read_module(file)
    except ValueError as error:
        message, module = str(error), None
    assert isinstance(module, Foreign) or "refused" in message or "expected a module" in message
