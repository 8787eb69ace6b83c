"""The ends of the example that plants garbage and asks for verdicts: its texts, its experiment, its last words.

What lies between them are commands, which have tests of their own, and more than an hour of training.
"""

from __future__ import annotations

import gzip
import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fastwarc.warc import WarcRecord, WarcRecordType

from proxy_eval.experiment import read_experiment

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("first_verdicts")


def archive(path: Path, pages: dict[str, str]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        for url, text in pages.items():
            record = WarcRecord()
            record.init_headers(record_type=WarcRecordType.response)
            record.headers["WARC-Target-URI"] = url
            record.headers["Content-Type"] = "application/http; msgtype=response"
            html = f"<html><body><p>{text}</p><ul><li>Home</li><li>Log in</li></ul></body></html>"
            record.set_bytes_content(f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n{html}".encode())
            record.write(file)


def test_garbage_is_planted_among_good_texts_and_held_out_texts_are_in_neither(
    example: ModuleType, tmp_path: Path
) -> None:
    data, out = tmp_path / "data", tmp_path / "texts"
    (data / "corpora").mkdir(parents=True)
    for domain in example.DOMAINS:
        lines = [json.dumps({"text": f"{domain} has a text of number {at} in it."}) for at in range(200)]
        (data / "corpora" / f"{domain}.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    archive(data / "crawl" / "part-0.warc.gz", {f"http://a.example/{at}": f"A page, {at}." for at in range(40)})
    archive(
        data / "crawl" / "languages.warc.gz",
        {f"http://b.example/{language}/{at}": f"{language} {at}" for language in ("de", "en", "fr") for at in range(9)},
    )
    example.plant(data, out)

    def texts(path: Path) -> list[str]:
        return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]

    found = {path.stem: texts(path) for path in (out / "pool").iterdir()}
    held = [text for domain in example.DOMAINS for text in texts(out / "held" / domain / f"{domain}.jsonl")]
    words = {kind: {tuple(sorted(text.split())) for text in found[kind]} for kind in ("good", "shuffled")}
    assert (
        len(held) + len(found["good"]) + len(found["shuffled"]) == 800 and min(len(held), len(found["shuffled"])) > 10
    )
    assert not words["good"] & words["shuffled"] and not set(held) & set(found["good"])
    assert not words["shuffled"] & {tuple(sorted(text.split())) for text in held}
    assert sum(text.split()[1:3] == ["has", "a"] for text in found["shuffled"]) < len(found["shuffled"]) / 4
    assert all("Log in" in text and "HTTP" not in text for text in found["boilerplate"])
    assert {text.split()[0] for text in found["foreign"]} == {"de", "fr"}


def calibration(rate: float | None) -> dict[str, Any]:
    found = {"learning_rate": 1e-3, "standard_error": 0.01, "spread": 0.02}
    return {"learning_rate": rate, "seeds": [1, 2, 3, 4], "rates": [found]}


def test_the_rope_is_one_standard_error_of_a_difference_in_tokens(example: ModuleType, tmp_path: Path) -> None:
    gain = [
        {"model": f"rules-1M-{tokens}-seed1", "panel": {"macro": bits}} for tokens, bits in ((500, 3.0), (1000, 2.75))
    ]
    (tmp_path / "gain.json").write_text(json.dumps(gain))
    (tmp_path / "calibration.json").write_text(json.dumps(calibration(1e-3)))
    example.experiment(tmp_path, size="1M", tokens=1_000_000, seeds=16)
    said = read_experiment(tmp_path / "experiment.yaml")
    assert said.rope == pytest.approx(2 ** (0.005 / 0.25) - 1, abs=1e-4)
    assert said.rungs[0].learning_rates == [1e-3] and said.rungs[0].seeds == 16
    assert [arm.name for arm in said.arms] == [*example.KEEP, *example.REJECT]
    (tmp_path / "calibration.json").write_text(json.dumps(calibration(None)))
    with pytest.raises(SystemExit, match="no learning rate"):
        example.experiment(tmp_path, size="1M", tokens=1_000_000, seeds=4)


@pytest.mark.parametrize(
    ("change", "expected"),
    [({}, True), ({"no-salad": "UNDECIDED"}, False), ({"random": "REJECT"}, False), ({"faults": ["void"]}, False)],
)
def test_the_example_succeeds_where_all_came_out_as_planted(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], expected: bool
) -> None:
    truth = (
        dict.fromkeys(example.KEEP, "KEEP") | dict.fromkeys(example.REJECT, "REJECT") | {"random": "UNDECIDED"} | change
    )
    runs = [{"metric": bits, "learning_rate": 1e-3} for bits in (-2.5, -2.6, None)]
    results = {
        "arms": [{"name": name, "verdict": truth[name]} for name in (*example.KEEP, *example.REJECT)],
        "placebos": [
            {"name": "same", "verdict": "UNDECIDED", "runs": runs},
            {"name": "random", "verdict": truth["random"], "runs": []},
        ],
        "rungs": [{"fixed": {"rho": 0.25}, "learning_rates": [1e-3]}],
        "faults": change.get("faults", []),
    }
    (tmp_path / "verdicts").mkdir()
    (tmp_path / "verdicts" / "results.json").write_text(json.dumps(results))
    assert example.report(tmp_path) is expected
    assert "rho 0.25; A/A spread 0.0707 bits per byte over 2 seeds, 1 diverged" in capsys.readouterr().out
