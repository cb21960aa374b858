"""What `pulumi up` runs: read the configuration, declare the stack, export its addresses."""

import pulumi

from infra.config import PROJECT, read_config
from infra.pulumi_config import values_of
from infra.stack import build

for name, value in build(read_config(values_of(PROJECT), pulumi.get_stack())).outputs.items():
    pulumi.export(name, value)
