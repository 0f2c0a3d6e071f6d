"""Two pools, each in an image with an application of its own; the script and its apps name them by their labels.

python two_images.py app1:0.1 app2:0.1          images by docker or podman, or paths of images of apptainer
"""

import sys

import flow
from flow import Config, Container, HighThroughputExecutor, python_app
from flow.providers import LocalProvider


@python_app(executors=["pool_app1"], cache=True)
def app_1(data):
    """Double the items; the code that does it is in the image."""
    import app1

    return app1.predict(data)


@python_app(executors=["pool_app2"], cache=True)
def app_2(data):
    """Add ten to the items; the code that does it is in the image."""
    import app2

    return app2.predict(data)


def main():
    """Run both apps, one after the other."""
    images = sys.argv[1:] or ["app1:0.1", "app2:0.1"]
    pools = [
        HighThroughputExecutor(
            label=f"pool_app{number}",
            container=Container(image),
            max_workers=1,
            provider=LocalProvider(init_blocks=1, max_blocks=2),
        )
        for number, image in enumerate(images, start=1)
    ]
    with flow.load(Config(executors=pools)):
        doubled = app_1([1, 2, 3])
        print(doubled.result(), app_2(doubled).result())


if __name__ == "__main__":
    main()
