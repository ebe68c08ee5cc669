"""Train on a text file for a few minutes, write with the model, and see how good it is.

python examples/train_and_sample.py my.txt --minutes 3
"""

import argparse

from earthworks.gopher import evaluate, generate, load, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--prompts", nargs="+", default=["The ", "It was "])
    arguments = parser.parse_args()

    run = train(arguments.text, minutes=arguments.minutes)
    model, tokenizer = load(run)
    for answer in generate(model, tokenizer, arguments.prompts, max_tokens=80, temperature=0.8, top_p=0.95):
        print(f"{answer.prompt}|{answer.text}\n")

    result = evaluate(run)
    low, high = result["interval"]
    print(f"{result['bits_per_byte']:.3f} bits per byte of held-out text, 95 % interval [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()
