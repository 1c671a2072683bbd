import logging

from dsrl.pipeline.progress.log_bridge import forward_logs


class Listener:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def warn(self, text: str) -> None:
        self.heard.append(text)

    def say(self, text: str) -> None:
        self.heard.append(f"({text})")


def test_warnings_of_dsrl_are_heard_even_after_hydra_has_silenced_them() -> None:
    listener, log = Listener(), logging.getLogger("dsrl.llm.somewhere")
    log.disabled = True
    with forward_logs(listener):
        log.warning("%s is down", "it")
        log.info("by the way")
        log.debug("quiet")
        logging.getLogger("other").warning("not ours")
    log.warning("too late")
    assert listener.heard == ["it is down", "(by the way)"]
