"""Words that form the DNS names in the exercises: enough of them that two students rarely get the same name."""

WORDS = (
    "amber", "basil", "cedar", "coral", "delta", "ember", "fjord", "garnet", "hazel", "indigo", "jasper", "lagoon",
    "maple", "nectar", "ochre", "opal", "pearl", "quartz", "raven", "saffron", "tundra", "umber", "willow", "zephyr",
)  # fmt: skip
