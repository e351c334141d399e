"""Throttling: who tries too often, at one account or from one address, is told to wait."""

from support.control import Dashboard

SETTINGS = {"control.tries_max": 5}


def test_tries_are_counted_by_account_and_by_peer(node):
    person = Dashboard(node).sign_up()
    answers = [person.login("wrong password") for _ in range(6)]
    assert [answer.status for answer in answers] == [401] * 5 + [429]
    assert answers[-1].json() == {"detail": "Too many attempts. Try again later."}
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 900
    # The right password does not help any more, and another account's neither: it is the same peer.
    assert person.login().status == 429
    assert Dashboard(node).login().status == 429
    # Another action is another count.
    assert person.post("/v1/auth/forgot-password", {"email": person.address}).status == 200
