"""YAML of anybody ends in its content or one line about it, and soon."""

import gzip
import time

import pytest
import yaml

from foundations.errors import InputError
from foundations.yaml_files import DEEPEST, MOST_BYTES, MOST_VALUES, parse_yaml, read_yaml

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)
MERGES = "a0: &a0 {k: x}\n" + "".join(f"a{n}: &a{n} {{b: *a{n - 1}, c: *a{n - 1}}}\n" for n in range(1, 40))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [1\nb: 2\n", "2: invalid YAML"),
        ("a: 1\nb: \x07\n", r"2: invalid YAML: '\x07' is a control character"),
        ("a: 1\nb: !!int foo\n", "2: invalid YAML: 'foo' is no int"),
        ("a: 1\nb: [1, !!bool foo]\n", "2: invalid YAML: 'foo' is no bool"),
        ("a: !!timestamp foo\n", "1: invalid YAML: 'foo' is no timestamp"),
        ("a: 2001-99-99\n", "1: invalid YAML: '2001-99-99' is no timestamp"),
        (f"a: {'9' * 5000}\n", "1: invalid YAML: '9999"),
        ("a: !!python/object/apply:os.system [ls]\n", "1: invalid YAML: could not determine a constructor"),
        ("[1]: 2\n? {a: 1}\n: 3\n", "1: invalid YAML: found unhashable key"),
        ("", "1: found nothing, expected YAML with keys and values"),
        ("# only this\n", "1: found nothing, expected YAML with keys and values"),
        ("[]\n", "1: found a list, expected YAML with keys and values"),
        ("- a\n", "1: found a list, expected YAML with keys and values"),
        ("a: *b\n", "1: the alias *b stands for nothing before it"),
        ("a: &a\n- *a\n", "2: the alias *a stands for nothing before it"),
        (LAUGHS, f"5: more than {MOST_VALUES:,} values"),
        (MERGES, f"15: more than {MOST_VALUES:,} values"),
        ("a: " + "[" * 100_000, f"1: more than {DEEPEST} levels"),
        ("".join(f"{' ' * n}a:\n" for n in range(1000)), f"{DEEPEST + 1}: more than {DEEPEST} levels"),
    ],
)
def test_yaml_that_cannot_be_used(tmp_path, content, message):
    path = tmp_path / "settings.yaml"
    path.write_text(content)
    began = time.monotonic()
    with pytest.raises(InputError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}:{message}")
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 5


def test_a_large_file_is_not_unpacked(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_bytes(gzip.compress(b"a: 1\n" * MOST_BYTES))
    with pytest.raises(InputError, match=rf"settings\.yaml: more than {MOST_BYTES:,} bytes, expected YAML"):
        read_yaml(path)


@pytest.mark.parametrize(
    "text",
    [
        "a: {b: [1, x, 2001-01-01, 1.5, !!int '7', ~, yes]}\n",
        "base: &base {a: 1, b: [1, 2]}\nc: {<<: *base, d: *base}\ne: [*base, *base]\n",
        "a: &x 3\nb: *x\n",
        "{a: {b: {}}}",
    ],
)
def test_what_is_read_is_what_yaml_reads(text):
    assert parse_yaml(text) == yaml.safe_load(text)
