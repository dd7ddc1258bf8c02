"""From a package to a repository: everything in one commit, or the repository as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from rlrun.algorithms.registry import algorithms
from rlrun.errors import UsageError
from rlrun.hub.client import hub_errors_in_words, quiet_without_terminal

# What an earlier push may have left that this one does not have; statistics of another agent must not stay.
_OURS = ("vec_normalize.pkl", "vec_normalize.npz", "q_table.npy", "replay.mp4", "learning_curve.png", "state.json")


def push_folder(api: HfApi, folder: Path, repo: str, *, private: bool, revision: str | None, again: str) -> str:
    """Upload a package.

    :param api: from :func:`rlrun.hub.client.writing_client`
    :param revision: a branch, made if it is not there; None: main
    :param again: the command that tries again
    :return: the commit's address
    :raises RlrunError: when it fails; the repository is as before, and the package stays
    """
    hint = f"The package is in {folder}; again: {again}"
    with hub_errors_in_words(f"looking for {repo}", hint):
        branches = _branches(api, repo, private)
    undo: Callable[[], object] = _nothing
    try:
        with hub_errors_in_words(f"pushing to {repo}", hint), quiet_without_terminal():
            if branches is None:
                # Not `exist_ok`: a repository that this token cannot see is not to be taken away below.
                api.create_repo(repo, private=private)
                undo = partial(api.delete_repo, repo, missing_ok=True)
            if revision is not None and revision not in (branches or ["main"]):
                api.create_branch(repo, branch=revision)
                undo = partial(api.delete_branch, repo, branch=revision) if undo is _nothing else undo
            commit = api.create_commit(
                repo,
                operations=[*_additions(folder), *_deletions(api, repo, revision, folder)],
                commit_message="Push with rlrun",
                revision=revision,
            )
    except BaseException:
        with contextlib.suppress(Exception):  # the failure above is the one to tell
            undo()
        raise
    return str(commit.commit_url)


def _nothing() -> None:
    """The repository is as it was."""


def _branches(api: HfApi, repo: str, private: bool) -> list[str] | None:
    """The names of a repository's branches; None when there is no such repository.

    :raises UsageError: when it is to be private and is not
    """
    try:
        info = api.model_info(repo)
    except RepositoryNotFoundError:
        return None
    if private and not info.private:
        raise UsageError(f"{repo} is there already and is public.", "Make it private in its settings, or name another.")
    return [branch.name for branch in api.list_repo_refs(repo).branches]


def _additions(folder: Path) -> list[CommitOperationAdd]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [CommitOperationAdd(file.relative_to(folder).as_posix(), file) for file in files]


def _deletions(api: HfApi, repo: str, revision: str | None, folder: Path) -> list[CommitOperationDelete]:
    there = api.list_repo_files(repo, revision=revision)
    stale = [name for name in there if (name in _OURS or _is_model(name)) and not (folder / name).exists()]
    return [CommitOperationDelete(name) for name in stale]


def _is_model(name: str) -> bool:
    """Whether a name is one under which models are pushed: ``<algo>-<env>.zip``."""
    algo, dash, _ = name.partition("-")
    return bool(dash) and "/" not in name and name.endswith(".zip") and algo.lower() in algorithms()
