from bench import kernels
from guard import kernels as compiled


def test_a_round_of_each(capsys, tmp_path):
    assert kernels.main(["--rounds", "1", "--docs", str(tmp_path / "page.md")]) == 0
    said = capsys.readouterr().out
    assert said.count("\n| ") == 11
    assert said.rstrip() in (tmp_path / "page.md").read_text()
    assert compiled.compiled is not None  # it is put back


def test_without_kernels_there_is_nothing_to_time(monkeypatch, capsys):
    monkeypatch.setattr(compiled, "compiled", None)
    assert kernels.main([]) == 2
    assert "without a C compiler" in capsys.readouterr().err
