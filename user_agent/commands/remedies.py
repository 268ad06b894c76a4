"""Remedies in the terminal's terms: options and commands, by the code and the parameter of an error."""

from __future__ import annotations

from ssd2.errors import ANY, Remedies, SlingshotError, with_remedies
from user_agent.answering.request import AnswerSettings
from user_agent.fields import settings_of

REMEDIES: Remedies = {
    **{(ANY, name): setting.option for name, setting in settings_of(AnswerSettings).items()},
    (ANY, "pair"): "`user-agent models list`, `user-agent models get NAME`, --pair NAME",
    (ANY, "source"): "`user-agent models get NAME --source hub`",
    (ANY, "hub_token"): "`user-agent models get NAME` asks for the token; or set the environment variable HF_TOKEN",
    (ANY, "core"): "--core HOST:PORT, or `user-agent config set core HOST:PORT`",
    (ANY, "ca"): "--ca FILE, or `user-agent config set ca FILE`",
    (ANY, "insecure"): "--ca FILE, or --insecure if you trust every network on the path",
    (ANY, "client_certificate"): "--client-certificate FILE --client-key FILE",
    (ANY, "core_key"): "`user-agent config set-core-key HOST:PORT`, or the environment variable SLINGSHOT_CORE_KEY",
    (ANY, "model"): "--model NAME, or `user-agent config set model NAME`",
    (ANY, "user_model"): "--user-model FOLDER, or `user-agent config set user_model FOLDER`",
    (ANY, "device"): "--device cpu, or `user-agent config set device cpu`",
    (ANY, "timeout"): "`user-agent config set timeout SECONDS`",
    (ANY, "logits"): "--logits FORMAT",
    (ANY, "docs"): "--docs FOLDER",
    (ANY, "questions"): "--questions FILE",
    (ANY, "is_confirmed"): "--yes",
    (ANY, "config_folder"): "the environment variable XDG_CONFIG_HOME",
    (ANY, "data_dir"): "the environment variable SLINGSHOT_DATA_DIR",
    (ANY, "passphrase"): "the environment variable SLINGSHOT_PASSPHRASE",
    (ANY, "port"): "--port",
    (ANY, "tuned"): "`user-agent tune --reset`",
    (ANY, "document"): "`user-agent docs list`",
    (ANY, "link"): "`user-agent docs status`",
    (ANY, "entry"): "`user-agent ledger show`",
    (
        "insecure_line",
        "ca",
    ): "--ca FILE, or `user-agent config set ca FILE`; `user-agent config forget-core-key HOST:PORT`",
    ("login_item_refused", None): "`user-agent serve`",
    ("key_refused", None): "`user-agent config set-core-key HOST:PORT`, or the environment variable SLINGSHOT_CORE_KEY",
}


def with_remedy(error: SlingshotError) -> str:
    """Return the text of an error with the option or the command that mends it, if there is one."""
    return with_remedies(error, REMEDIES)
