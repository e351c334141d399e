"""What an ordinary client sees of POST /v1/ingest."""

from support.kavachd import event


def test_a_batch_is_stored_once_it_is_accepted(node):
    sent = event()
    answer = node.post([sent])
    assert answer.status == 202
    assert answer.json() == {"accepted": 1, "rejected": 0, "mode": "direct", "rejected_agents": []}
    assert answer.headers["kavach-receipt"] == "journal"
    node.wait_for_events(1)
    node.check_roll_ups()
