"""Where a node's settings come from, and how what is wrong with them is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lattice_cli import settings
from lattice_core.config import NodeConfig
from lattice_core.errors import ConfigurationError


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "lattice.toml"
    path.write_text(text)
    return path


def test_without_anything_the_defaults_hold() -> None:
    loaded = settings.load({"name": None}, environ={})
    assert loaded.config == NodeConfig()
    assert set(loaded.sources.values()) == {"default"}


def test_flags_win_over_variables_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, 'name = "file"\ndata-dir = "file"\npeer_addr = "h:1"\nheartbeat_ms = 50\n')
    environ = {"LATTICE_NAME": "variable", "LATTICE_DATA_DIR": "variable", "LATTICE_DRAIN_SECONDS": "1.5"}
    config, sources = settings.load({"name": "flag", "client_addr": None}, config_file=path, environ=environ)
    assert (config.name, config.data_dir, config.peer_addr) == ("flag", "variable", "h:1")
    assert (config.heartbeat_ms, config.drain_seconds) == (50, 1.5)
    assert (sources["name"], sources["data_dir"], sources["peer_addr"], sources["client_addr"]) == (
        "--name", "LATTICE_DATA_DIR", str(path), "default",
    )  # fmt: skip


def test_the_file_may_be_named_by_a_variable(tmp_path: Path) -> None:
    path = write(tmp_path, 'name = "n7"\n')
    assert settings.load({}, environ={"LATTICE_CONFIG": str(path)}).config.name == "n7"


def test_the_initial_cluster_may_be_text_or_a_table(tmp_path: Path) -> None:
    as_text = write(tmp_path, 'initial_cluster = "n1=h:1,n2=h:2"\n')
    first = settings.load({}, config_file=as_text, environ={}).config
    as_table = write(tmp_path, '[initial-cluster]\nn1 = "h:1"\nn2 = "h:2"\n')
    second = settings.load({}, config_file=as_table, environ={}).config
    assert first.initial_cluster == second.initial_cluster == {"n1": "h:1", "n2": "h:2"}
    assert settings.load({"peer_routes": "n2=h:3"}, environ={}).config.peer_routes == {"n2": "h:3"}
    flag = settings.load({"initial_cluster": "n1=h:1"}, environ={}).config
    assert flag.initial_cluster == {"n1": "h:1"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('name = "a"\nheartbeet_ms = 3\n', "line 2: heartbeet_ms is no setting"),
        ('name = "a"\ndata_dir = \n', "line 2: data_dir: invalid value"),
        ('name = "a\n', "line 1: name: illegal character"),
        ('name = "a"\nname = "b"\n', "line 2: name: cannot overwrite a value"),
        ("heartbeat_ms = 'x'\n", "line 1: heartbeat_ms: 'x' is not a whole number"),
        ("\n\nheartbeat-ms = 1.5\n", "line 3: heartbeat-ms: 1.5 is not a whole number"),
        ("heartbeat_ms = true\n", "line 1: heartbeat_ms: True is not a whole number"),
        ("drain_seconds = 'soon'\n", "line 1: drain_seconds: 'soon' is not a number"),
        ("name = 3\n", "line 1: name: 3 is not text"),
        ("name = 'a'\ndata_dir = 'a'\ndata-dir = 'b'\n", "line 3: data-dir is there twice"),
        ("initial_cluster = 'n1'\n", "line 1: initial_cluster: 'n1' is not NAME=HOST:PORT"),
        ("initial_cluster = 5\n", "line 1: initial_cluster: neither"),
        ("[server]\nname = 'a'\n", "line 1: server is no setting"),
    ],
)
def test_what_is_wrong_in_the_file_is_named_by_file_line_and_key(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        settings.load({}, config_file=path, environ={})
    assert f"{path}, {expected}" in caught.value.message


@pytest.mark.parametrize("setting", ["auto_remove_after_seconds", "drain_seconds"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_what_is_within_any_bounds_is_no_number_of_seconds(setting: str, value: str) -> None:
    config = settings.load({}, environ={f"LATTICE_{setting.upper()}": value}).config
    with pytest.raises(ConfigurationError, match=f"{setting} is {value}, not a number of seconds"):
        config.validate()


def test_an_unknown_key_is_answered_with_the_one_that_was_meant(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings.load({}, config_file=write(tmp_path, "heartbeet_ms = 3"), environ={})
    assert caught.value.hint == "heartbeat_ms = ..."


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(ConfigurationError, match="cannot read"):
            settings.load({}, config_file=path, environ={})
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"name = 'a'\nx = \xff\n")
    with pytest.raises(ConfigurationError, match="line 2: not UTF-8"):
        settings.load({}, config_file=binary, environ={})


def test_a_bad_variable_or_flag_is_named() -> None:
    with pytest.raises(ConfigurationError, match="LATTICE_HEARTBEAT_MS: 'x' is not a whole number"):
        settings.load({}, environ={"LATTICE_HEARTBEAT_MS": "x"})
    with pytest.raises(ConfigurationError, match="--initial-cluster: 'n1' is not NAME=HOST:PORT"):
        settings.load({"initial_cluster": "n1"}, environ={})


def test_a_variable_that_looks_like_a_setting_is_warned_about_and_others_are_left_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings.load({}, environ={"LATTICE_CLIENT_ADR": "h:1", "LATTICE_ENDPOINTS": "h:1", "LATTICE_ZZZ": "1"})
    assert capsys.readouterr().err.splitlines() == [
        "warning: LATTICE_CLIENT_ADR is no setting and is ignored. did you mean LATTICE_CLIENT_ADDR?"
    ]


def test_config_show_says_where_values_come_from(tmp_path: Path, lattice: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATTICE_NAME", "n9")
    path = str(write(tmp_path, "heartbeat_ms = 50\n"))
    code, out, _ = lattice("config", "show", path)
    assert code == 0
    assert "name\tn9\tLATTICE_NAME\n" in out
    assert f"heartbeat_ms\t50\t{path}\n" in out
    assert "segment_bytes\t16777216\tdefault\n" in out
    assert '"source": "LATTICE_NAME"' in lattice("config", "show", path, "-o", "json")[1]
    assert "FROM" in lattice("config", "show", path, "-o", "table")[1]


def test_config_check_validates(tmp_path: Path, lattice: Any) -> None:
    assert lattice("config", "check", str(write(tmp_path, "heartbeat_ms = 50\n"))) == (0, "", "valid\n")
    code, _, err = lattice("config", "check", str(write(tmp_path, "heartbeat_ms = 900\n")))
    assert code == 2
    assert "500 ms" in err
    assert "900 ms" in err


def test_the_read_mode_comes_from_file_variable_or_flag_and_is_checked(tmp_path: Path) -> None:
    path = write(tmp_path, 'read_mode = "lease"\n')
    assert settings.load({}, environ={}).config.read_mode == "read-index"
    assert settings.load({}, config_file=path, environ={}).config.read_mode == "lease"
    variable = settings.load({}, config_file=path, environ={"LATTICE_READ_MODE": "read-index"})
    assert (variable.config.read_mode, variable.sources["read_mode"]) == ("read-index", "LATTICE_READ_MODE")
    assert settings.load({"read_mode": "lease"}, environ={}).config.read_mode == "lease"
    with pytest.raises(ConfigurationError, match="read mode 'quorum' is not read-index or lease"):
        settings.load({"read_mode": "quorum"}, environ={}).config.validate()
