from types import SimpleNamespace

import torch

from myna.train.machines.reading import begin_reading


def test_on_a_gpu_the_copy_is_asked_for_before_later_work_and_only_it_is_waited_for(monkeypatch):
    """Not run on a GPU: a stand-in for a tensor there notes the order."""
    done = []

    class Event:
        def record(self):
            done.append("record")

        def synchronize(self):
            done.append("synchronize")

    def to(device, non_blocking):
        done.append(f"copy to {device}, {'' if non_blocking else 'not '}in the queue")
        return SimpleNamespace(tolist=lambda: done.append("read") or [1.0])

    monkeypatch.setattr(torch.cuda, "Event", Event)
    read = begin_reading(SimpleNamespace(device=torch.device("cuda"), to=to))
    done.append("update")
    assert read() == [1.0]
    assert done == ["copy to cpu, in the queue", "record", "update", "synchronize", "read"]


def test_on_a_cpu_it_is_a_list():
    assert begin_reading(torch.tensor([1.0, 2.5]))() == [1.0, 2.5]
