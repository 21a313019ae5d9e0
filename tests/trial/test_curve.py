"""A learning curve outlives its process, and what training repeats is noted once."""

from nash_search.config import Architecture, SearchConfig, Workload
from nash_search.records import Quality
from nash_search.trial.curve import FILE, Curve
from nash_search.trial.job import Job


def quality(value):
    return Quality(metric="bleu", value=value, standard_error=0.1, n=100, split="validation")


def test_an_interrupted_curve_goes_on_and_a_repeated_rung_replaces_the_old(tmp_path):
    job = Job(
        number=0, architecture=Architecture(encoder_sparsity_pct=0, decoder_layers=2), seed=0, question="q",
        config=SearchConfig(), workload=Workload(input_tokens=4, output_tokens=4), share=0.5, folder=str(tmp_path),
    )  # fmt: skip
    first = Curve(job)
    for step in (10, 20, 30):
        first.add(step, quality(step))
    again = Curve(job)
    assert again.points == first.points
    again.add(20, quality(99.0))
    assert [(p.step, p.value) for p in Curve(job).points] == [(10, 10.0), (20, 99.0)]
    assert again.points[-1].train_s >= first.points[-1].train_s, "the clock goes on where it stopped"
    (job.work / FILE).write_text("{")
    assert Curve(job).points == ()
