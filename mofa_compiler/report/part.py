"""What all models of this package are made of."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

Number = Annotated[float | None, AfterValidator(lambda value: value if value is None or math.isfinite(value) else None)]
"""What was measured; None where it is not finite, or not known"""

Interval = tuple[float, float]


class Part(BaseModel):
    """Keys that are not known are kept: a later version may write more of them."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True, use_attribute_docstrings=True)

    def to_data(self) -> dict[str, Any]:
        """As plain data, by the keys that the schema names."""
        return self.model_dump(mode="json", by_alias=True)
