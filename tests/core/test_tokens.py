"""Passwords and tokens: what is kept proves them, and is not them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lattice_core import tokens
from lattice_core.errors import ConfigurationError


def test_a_password_is_kept_as_scrypt_with_a_salt_of_its_own_and_the_cost_that_owasp_recommends() -> None:
    verifier = tokens.hash_password(b"correct horse")
    kind, log2_n, r, p, salt, digest = verifier.split(b"$")
    assert (kind, int(log2_n), int(r), int(p)) == (b"scrypt", 15, 8, 3)
    assert (len(salt), len(digest)) == (32, 64)
    assert b"horse" not in verifier
    assert tokens.is_password_of(b"correct horse", verifier)
    assert not tokens.is_password_of(b"correct hors", verifier)


def test_a_verifier_is_checked_with_the_cost_it_was_made_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "SCRYPT_LOG2_N", 4)
    cheap = tokens.hash_password(b"pw")
    assert cheap != tokens.hash_password(b"pw"), "salted"
    monkeypatch.setattr(tokens, "SCRYPT_LOG2_N", 5)
    assert tokens.is_password_of(b"pw", cheap)


@pytest.mark.parametrize("verifier", [None, b"", b"md5$1", b"scrypt$4$8$1$zz$00", b"scrypt$60$8$1$00$00", b"\xff"])
def test_no_password_fits_what_is_missing_unknown_or_damaged(
    verifier: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "SCRYPT_LOG2_N", 4)
    for password in (b"", b"pw"):
        assert not tokens.is_password_of(password, verifier)


def test_a_token_names_itself_and_only_its_secret_fits() -> None:
    fresh, other = tokens.new_token(), tokens.new_token()
    parts = tokens.split_token(fresh.text)
    assert parts is not None
    assert parts[0] == fresh.id != other.id
    assert tokens.is_secret_of(parts[1], fresh.digest)
    assert not tokens.is_secret_of(parts[1], other.digest)
    assert len(bytes.fromhex(parts[1])) == 32
    assert repr(fresh.digest) not in fresh.text


@pytest.mark.parametrize(
    "text", ["", "lattice", "lattice_a", "other_a_b", "lattice_a_b_c", "lattice_a_" + "b" * 200, "lattice_a_\u00e9"]
)
def test_what_is_no_token_is_none(text: str) -> None:
    assert tokens.split_token(text) is None


def test_a_token_file_holds_it_in_its_first_line_and_its_errors_never_show_what_is_in_it(tmp_path: Path) -> None:
    file = tmp_path / "token"
    fresh = tokens.new_token()
    file.write_text(f" {fresh.text}\r\nanything\n")
    assert tokens.read_token_file(str(file)) == fresh.text
    file.write_text("my-password\n")
    with pytest.raises(ConfigurationError) as caught:
        tokens.read_token_file(str(file))
    assert "my-password" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="No such file"):
        tokens.read_token_file(str(tmp_path / "none"))
