"""The Flower ``ServerApp``: reads the run configuration and hands the grid to the coordinator."""

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run, or resume, one federated run."""
    from fedft.coordinator.flower_app import run_from_flower

    run_from_flower(grid, context.run_config)
