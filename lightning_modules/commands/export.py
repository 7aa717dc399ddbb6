"""What export.py does: a run's student as a folder that sentence-transformers and transformers open."""

from __future__ import annotations

import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

from foundations.errors import InputError
from foundations.files import new_folder
from lightning_modules.commands.evaluate import load_weights, open_run, score_encoder
from lightning_modules.export.card import write_card
from lightning_modules.export.folder import Written, write_folder
from lightning_modules.models.trust import read_run_config
from lightning_modules.teachers.run import RunTeacher
from strategies.functional import Marginals


def export_run(options: Namespace) -> Path:
    """Write the folder, whole or not at all, and push it where that was asked for; see ``export.py --help``.

    Returns:
        The folder.

    Raises:
        InputError: no such run or checkpoint, the folder holds something, or the student cannot be exported so.
    """
    target, run = Path(options.to), Path(options.run)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError("the folder is not empty: give another one, or remove it first", target)
    if options.push:
        _check_name(options.push)
    config = read_run_config(run)
    score = options.score or ("maxsim" if config["model"].get("score") == "maxsim" else "pooled")
    weights: Marginals = options.token_weights or config.get("evaluation", {}).get("token_weights") or "uniform"
    if options.onnx or options.int8:
        from lightning_modules.export.onnx import check_onnx

        check_onnx(score, weights)
    teacher = RunTeacher(options.run, checkpoint=options.checkpoint, device="cpu")
    with new_folder(target) as folder:
        written = write_folder(folder, teacher, score, weights)
        notes = _onnx(options, folder, written)
        shutil.copy(run / "config.yaml", folder / "training.yaml")
        write_card(folder, options.push or target.name, run, config, written, options.license, notes)
    difference = f"vectors equal the run's to {written.difference:.1g}"
    print(f"{target}: {score}, {written.dim} dimensions, {difference}")
    if options.push:
        print(push(target, options.push, options.private))
    return target


def _onnx(options: Namespace, folder: Path, written: Written) -> list[str]:
    """Write the ONNX files that were asked for; what the card says about them."""
    if not options.onnx and not options.int8:
        return []
    from lightning_modules.export.onnx import INT8, ONNX, OnnxEncoder, write_int8, write_onnx

    notes = [write_onnx(folder, written)]
    if options.int8:
        size = write_int8(folder)
        path = Path(options.run) / "checkpoints" / f"{options.checkpoint}.ckpt"
        weights = [f"--evaluation.token_weights={options.token_weights}"] if options.token_weights else []
        cli = open_run(options.run, weights, path)
        load_weights(cli.model, path)
        before, after = (score_encoder(cli, OnnxEncoder(folder, file), written.score) for file in (ONNX, INT8))
        metric = cli.evaluation.metrics[0]
        losses = [
            f"{metric} {result.means[metric]:.3f} becomes {after[name].means[metric]:.3f} on {name}"
            for name, result in before.items()
        ]
        notes.append(f"{size}: {', '.join(losses)}, compared by {written.score}.")
    return notes


def _check_name(name: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError:
        raise InputError(f"--push is {name!r}, expected organisation/model of letters, digits and -_.") from None


def push(folder: Path, name: str, private: bool) -> str:
    """Upload a folder to the Hugging Face hub, or to the endpoint in ``HF_ENDPOINT``.

    Args:
        folder: of the exported student.
        name: ``organisation/model``.
        private: whether others may see it.

    Returns:
        The address of the model.

    Raises:
        InputError: the hub refused.
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    api: Any = HfApi()
    try:
        address = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Student exported by Potstill")
    except (HfHubHTTPError, LocalTokenNotFoundError, httpx.HTTPError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"written, but the hub did not take it as --push {name}: {reason}", folder) from error
    return str(address)
