"""From a package to a repository: everything in one commit, or the repository as it was."""

from __future__ import annotations

import contextlib
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from rlrun.hub.client import hub_errors_in_words

# What an earlier push may have left that this one does not have; statistics of another agent must not stay.
_OURS = ("vec_normalize.pkl", "vec_normalize.npz", "replay.mp4", "learning_curve.png", "state.json")


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
        existed = _exists(api, repo)
    try:
        with hub_errors_in_words(f"pushing to {repo}", hint):
            if not existed:
                api.create_repo(repo, private=private, exist_ok=True)
            if revision is not None:
                api.create_branch(repo, branch=revision, exist_ok=True)
            commit = api.create_commit(
                repo,
                operations=[*_additions(folder), *_deletions(api, repo, revision, folder)],
                commit_message="Push with rlrun",
                revision=revision,
            )
    except BaseException:
        if not existed:
            with contextlib.suppress(Exception):  # the failure above is the one to tell
                api.delete_repo(repo, missing_ok=True)
        raise
    return str(commit.commit_url)


def _exists(api: HfApi, repo: str) -> bool:
    try:
        api.model_info(repo)
    except RepositoryNotFoundError:
        return False
    return True


def _additions(folder: Path) -> list[CommitOperationAdd]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [CommitOperationAdd(file.relative_to(folder).as_posix(), file) for file in files]


def _deletions(api: HfApi, repo: str, revision: str | None, folder: Path) -> list[CommitOperationDelete]:
    there = api.list_repo_files(repo, revision=revision)
    stale = [name for name in there if (name in _OURS or _is_model(name)) and not (folder / name).exists()]
    return [CommitOperationDelete(name) for name in stale]


def _is_model(name: str) -> bool:
    return "/" not in name and name.endswith(".zip")
