"""The decorators, under the path that scripts use."""

from flow_core.apps.app import (
    AppBase as AppBase,
    BashApp as BashApp,
    JoinApp as JoinApp,
    PythonApp as PythonApp,
)
from flow_core.apps.decorators import (
    App as App,
    bash_app as bash_app,
    join_app as join_app,
    python_app as python_app,
)
