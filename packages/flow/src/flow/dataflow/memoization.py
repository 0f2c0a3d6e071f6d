"""What remembers results, under the path that scripts use."""

from flow_core.interfaces.memoizer import Memoizer as Memoizer
from flow_core.memo.registry import id_for_memo as id_for_memo
