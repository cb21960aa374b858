# A partial stub (PEP 561): the package's own __init__ imports all of its 250 modules for type checkers, which costs
# mypy 49 s and 300 MB of cache. With this file it reads the modules that infra imports, and no other.
from pulumi_azure_native.provider import *  # noqa: F403 - all that it exports
