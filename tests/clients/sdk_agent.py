"""The program of a customer who uses the `agentkavach` SDK, told by JSON lines on its standard input what to do.

    {"call": {"agent": "a", "model": "gpt-4o", "prompt": "hello", "stream": false}}
    {"make": {"agent": "a", "budget": 5, "org_budget": 50, "channels": [{"channel_type": "kill", "threshold": 1}]}}
    {"flush": true}        what the SDK otherwise does every five seconds

Each line is answered with one JSON line: the outcome. At the end of the input it shuts the SDK down and says what
the SDK has logged. The SDK itself is the one from PyPI, unchanged.
"""

import json
import logging
import sys

# tiktoken would download its vocabulary. Without it the SDK counts the input of streams by the length of the text.
sys.modules["tiktoken"] = None

from agentkavach import AgentKavach, Budget, ChannelConfig  # noqa: E402


class Warnings(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class Agents:
    def __init__(self, api_key: str):
        self._api_key = api_key
        self._by_name: dict[str, AgentKavach] = {}

    def call(self, agent: str, model: str, prompt: str, stream: bool = False) -> str:
        guard = self._of(agent)
        try:
            answer = guard.chat.completions.create(
                model=model, messages=[{"role": "user", "content": prompt}], **({"stream": True} if stream else {})
            )
            if stream:
                return "".join(chunk.choices[0].delta.content or "" for chunk in answer)
            return answer.choices[0].message.content
        except Exception as error:
            return type(error).__name__

    def make(self, agent: str, budget: float = 0, org_budget: float = 0, channels: list = (), **limits) -> None:
        self._by_name[agent] = AgentKavach(
            api_key=self._api_key, agent_name=agent, provider="openai", llm_key="sk-nobody",
            budget=Budget.daily(budget) if budget else None,
            org_budget=Budget.org_budget(limit=org_budget) if org_budget else None,
            channels=[ChannelConfig(**channel) for channel in channels] or None, **limits,
        )

    def flush(self) -> None:
        for guard in self._by_name.values():
            guard._tracer_provider.force_flush(timeout_millis=120_000)

    def shutdown(self) -> None:
        for guard in self._by_name.values():
            guard.shutdown()

    def _of(self, agent: str) -> AgentKavach:
        if agent not in self._by_name:
            self._by_name[agent] = AgentKavach(
                api_key=self._api_key, agent_name=agent, provider="openai", llm_key="sk-nobody"
            )
        return self._by_name[agent]


def main() -> None:
    warnings = Warnings()
    logging.getLogger().addHandler(warnings)
    agents = Agents(api_key=sys.argv[1])
    for line in sys.stdin:
        order = json.loads(line)
        if "make" in order:
            outcome = agents.make(**order["make"])
        else:
            outcome = agents.call(**order["call"]) if "call" in order else agents.flush()
        print(json.dumps(outcome), flush=True)
    agents.shutdown()
    print(json.dumps(warnings.lines), flush=True)


main()
