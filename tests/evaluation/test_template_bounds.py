"""Templates of untrusted task files must end soon and not fill the memory."""

import json
import resource
import time

import pytest
from known_models import Uniform

from earthworks.evaluation import evaluate_tasks
from earthworks.evaluation.tasks.command import table
from earthworks.evaluation.tasks.items import make_items
from earthworks.evaluation.tasks.task_file import Task
from earthworks.evaluation.tasks.templates import TooMuch, evaluate, render

ROW = {"a": "word " * 50, "xs": [str(i) for i in range(300)], "long": "x\ty\n" * 2000}
TOO_MUCH = {
    "a text many times": "{{ 'a' * 5000000000 }}",
    "a list many times": "{{ [1] * 5000000000 }}",
    "a power": "{{ (2 ** 10000) ** 10000 }}",
    "loops in loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "loops over the row's own list": "{% for a in xs %}" * 4 + "." + "{% endfor %}" * 4,
    "a loop that prints": "{% for i in range(99999) %}{{ long }}{% endfor %}",
    "a loop around much text": "{% for i in range(99999) %}" + "t" * 40000 + "{% endfor %}",
    "a loop that searches": "{% for i in range(99999) %}{% if 'zz' in long %}{% endif %}{% endfor %}",
    "a loop that sorts": "{% for i in range(99999) %}{{ xs | sort | join }}{% endfor %}",
    "a recursive loop": "{% for x in xs recursive %}{{ loop(xs) }}{% endfor %}",
    "an endless macro": "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "a macro that doubles": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(40) }}",
    "a block in itself": "{% block b %}{{ self.b() }}{% endblock %}",
    "a filter that widens": "{{ a | center(1000000000) }}",
    "a method that widens": "{{ a.ljust(1000000000) }}",
    "a wide number": "{{ '%1000000000d' % 1 }}",
    "a wide number by an argument": "{{ '%*d' % (1000000000, 1) }}",
    "many decimals": "{{ '%.1000000000f' | format(1) }}",
    "a wide format": "{{ '{:1000000000d}'.format(1) }}",
    "a wide format by an argument": "{{ '{:{w}}'.format(1, w=1000000000) }}",
    "a replacement": "{{ long.replace('x', 'y' * 1000000) }}",
    "a join": "{{ ('y' * 100000).join(xs) }}",
    "a joining filter": "{{ xs | join('y' * 100000) }}",
    "an indent": "{{ long | indent(1000000) }}",
    "tabs": "{{ long.expandtabs(1000000) }}",
    "a filled batch": "{{ xs | batch(1000000000, 'x') | list }}",
    "many slices": "{{ xs | slice(1000000000) | list }}",
    "a filter in map": "{{ xs | map('center', 100000000) | list }}",
    "a precise round": "{{ 1.5 | round(1000000000, 'ceil') }}",
    "a text that doubles": "{% set a = 'x' %}" + "{% set a = a ~ a %}" * 60,
    "a sum that doubles": "{% set a = 'x' %}" + "{% set a = a + a %}" * 60,
    "a block that doubles": "{% set a = 'x' %}" + "{% set a %}{{ a }}{{ a }}{% endset %}" * 60,
    "lists that hold each other": "{% set a = ['x'] %}" + "{% set a = [a, a] %}" * 60 + "{{ a }}",
    "equal lists": "{% set a, b = [1], [1] %}" + "{% set a = [a, a] %}{% set b = [b, b] %}" * 60 + "{{ a == b }}",
    "mappings that hold each other": "{% set a = dict(k='x') %}" + "{% set a = dict(k=a, l=a) %}" * 60 + "{{ a }}",
    "a text that loops double": "{% set n = namespace(a='x') %}{% for x in xs %}{% set n.a = n.a ~ n.a %}{% endfor %}",
    "deep brackets": "{{ " + "(" * 9000 + "1" + ")" * 9000 + " }}",
}  # fmt: skip


@pytest.mark.parametrize("shape", TOO_MUCH)
def test_a_template_that_would_never_end_is_stopped_soon_and_named(shape):
    started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TooMuch, match="takes too much time or memory") as refusal:
        render(TOO_MUCH[shape], ROW)
    assert time.process_time() - started < 2  # a quarter of a second where nothing else runs
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024
    assert TOO_MUCH[shape][:20] in str(refusal.value)


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("{{ a | trim | length }}", "249"),
        ("{% for x in xs[:3] %}{{ 'ABC'[loop.index0] }}. {{ x }}{% if not loop.last %}, {% endif %}{% endfor %}",
         "A. 0, B. 1, C. 2"),
        ("{{ xs | map('int') | select('divisibleby', 100) | join(' ') }}", "0 100 200"),
        ("{{ '%05.2f %s' % (1.5, 'b') }} {{ '{:>4}{x}'.format(1, x=2) }} {{ 'a' * 3 ~ [1, 2] }}", "01.50 b    12 aaa[1, 2]"),
        ("{% macro twice(t) %}{{ t }}{{ t }}{% endmacro %}{{ twice('ab') }}", "abab"),
        ("{% set n = namespace(k=0) %}{% for x in xs %}{% set n.k = n.k + x | int %}{% endfor %}{{ n.k }}", "44850"),
        ("{{ long.split('\\n') | batch(1000) | map('first') | list }}", "['x\\ty', 'x\\ty', '']"),
        ("{{ dict(a=1, b=[2]) | tojson }} {{ xs | groupby(0) | length }}", '{"a": 1, "b": [2]} 10'),
    ],
)  # fmt: skip
def test_what_prompts_are_made_with_says_what_it_always_said(source, shown):
    assert render(source, ROW) == shown


def test_a_row_may_be_as_long_as_a_book():
    """The budget of a template grows with the row."""
    row = {"text": "word " * 2_000_000 + "end", "choices": [str(n) for n in range(50_000)]}
    assert render("{{ text.rsplit(' ', 1)[0] }}", row) == row["text"][:-4]
    assert evaluate("choices + ['more']", row)[-1] == "more"
    with pytest.raises(TooMuch):
        render("{% for c in choices %}{{ text }}{% endfor %}", row)


def test_a_task_of_such_a_template_is_absent_with_a_sentence_and_the_others_are_measured(tiny_eval, alphabet, tmp_path):
    """The whole task is dropped at the first row, because the others would take as long."""
    row = {"q": "one", "options": ["a", "bb"], "gold": 1}
    (tmp_path / "mine.jsonl").write_text("\n".join([json.dumps(row)] * 500))
    common = {"category": "own", "kind": "choice", "file": "mine.jsonl", "choices": "options", "gold": "gold"}
    bad = {**common, "name": "endless", "context": TOO_MUCH["loops in loops"]}
    (tmp_path / "mine.yaml").write_text(json.dumps([bad, {**common, "name": "mine", "context": "{{ q }}"}]))
    started = time.process_time()
    result = evaluate_tasks((Uniform(), alphabet), tmp_path, [str(tmp_path / "mine.yaml")], limit=20)
    assert time.process_time() - started < 5
    assert [each["name"] for each in result["results"]] == ["mine"]
    (absent,) = result["absent"]
    assert "task endless cannot be asked: the template '{% for i in range(99999) %}" in absent["reason"]
    assert absent["reason"] in table(result)


def test_what_an_expression_gives_is_bounded_too(tmp_path):
    (tmp_path / "mine.jsonl").write_text(json.dumps({"q": "one"}))
    for where in ("'a' * 5000000000", "range(99999) | list + [1] * 99999999"):
        task = Task(name="t", category="own", kind="answer", file="mine.jsonl", context="c", answers="[1]", where=where)
        with pytest.raises(ValueError, match="task t cannot be asked: the template"):
            make_items(task, tmp_path)
