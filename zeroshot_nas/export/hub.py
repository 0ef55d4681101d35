"""`push_to_hub`: an exported folder to the Hugging Face Hub, by its own client."""

from __future__ import annotations

from pathlib import Path

from zeroshot_nas.errors import MissingExtraError

FILES = ("README.md", "config.json", "model.py", "model.safetensors")
"""What is uploaded; other files in the folder stay where they are."""


def push_to_hub(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    message: str = "A network of zeroshot-nas",
) -> str:
    """Uploads a folder that ``export_network(..., formats=["hub"])`` wrote.

    It is loaded first, so that nothing damaged is published. The repository is made where there is none.

    Args:
        folder: The folder.
        repo_id: ``"owner/name"`` on the Hub.
        private: Whether a repository that is made can be seen by its owner alone.
        token: Token of the Hub; default: the one that huggingface_hub knows.
        message: Message of the commit.

    Returns:
        Address of the commit.

    Raises:
        MissingExtraError: The extra ``hub`` is not installed.
        FileNotFoundError: It is no such folder, or a file is missing.
        FileFormatError: A file is damaged.
    """
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise MissingExtraError("huggingface_hub", "hub") from None
    from zeroshot_nas.training.checkpoint import load

    folder = Path(folder)
    for name in FILES:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is not there; expected a folder of `export --format hub`")
    load(folder / "config.json")
    api = HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    commit = api.upload_folder(folder_path=folder, repo_id=repo_id, commit_message=message, allow_patterns=list(FILES))
    return str(commit.commit_url)
