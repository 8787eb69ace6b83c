"""lm-evaluation-harness on local files, in a process of its own: `python -m tests.proxy_eval.harness MODEL FOLDER OUT`.

FOLDER holds `tasks.json`: for each task the file of the harness that configures it (null: none), and what is changed in
it (where the data lies). OUT gets, of each task, its results and the log-likelihoods, greedy or not, and metrics of
each item.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any


def samples_of(model: str, tasks: list[dict[str, Any]]) -> dict[str, Any]:
    """Evaluate each task on all its items, without examples before the question."""
    from lm_eval import evaluator
    from lm_eval.models.huggingface import HFLM

    results = evaluator.simple_evaluate(
        model=HFLM(pretrained=model, device="cpu", dtype="float32", batch_size=4),
        tasks=[task_of(**task) for task in tasks],
        num_fewshot=0,
        bootstrap_iters=0,
        log_samples=True,
    )
    return {
        task: {
            "results": {name: value for name, value in results["results"][task].items() if isinstance(value, float)},
            "samples": [
                {
                    "responses": sample["filtered_resps"],
                    **{name: sample[name] for name in ("acc", "acc_norm") if name in sample},
                }
                for sample in sorted(samples, key=lambda sample: sample["doc_id"])
            ],
        }
        for task, samples in results["samples"].items()
    }


def task_of(yaml: str | None, changed: dict[str, Any]) -> Any:
    """The task of a file in the harness with some of its settings changed, or a task of these settings alone.

    The file is named because the harness reads some 10,000 files to find a task by its name.
    """
    import lm_eval.tasks
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    own = {} if yaml is None else load_yaml(Path(lm_eval.tasks.__path__[0]) / yaml, resolve_func=True)
    return ConfigurableTask(config={name: value for name, value in {**own, **changed}.items() if name != "tag"})


if __name__ == "__main__":
    model, folder, out = sys.argv[1:]
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HOME": str(Path(folder) / "cache")}
    found = samples_of(model, json.loads((Path(folder) / "tasks.json").read_text()))
    Path(out).write_text(json.dumps(found))
