"""The six sizes of Gopher: the count that names them, the count that is built, and what a token costs.

python examples/family_sizes.py
"""

from earthworks.gopher import FAMILY, GopherConfig
from earthworks.gopher.cost import training_flops


def main() -> None:
    print(f"{'name':>6} {'named count':>18} {'built':>18} {'GFLOP a training token':>24}")
    for name in FAMILY:
        config = GopherConfig.preset(name)
        named, built = config.num_parameters(full=False), config.num_parameters()
        print(f"{name:>6} {named:>18,} {built:>18,} {training_flops(config, config.context) / 1e9:>24,.1f}")


if __name__ == "__main__":
    main()
