"""The peers of the scoring endpoint: the origin documents' stack, and the floors under any stack on this machine.

The origin stack is written as its documents describe it, and as well as it can be: FastAPI on uvicorn with httptools
and uvloop, a pydantic body, the same trees in a pickled XGBoost classifier, one `shap.TreeExplainer` kept in memory,
one synchronous SQLAlchemy insert per request on a pooled connection. It is given its features in the body and so reads
no state, claims no id and writes one row.
"""

# Without postponed annotations, because FastAPI reads those of a function that is defined inside another one.
import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

CONSTANT = b'{"decision":"approve"}'


def pickled(booster: bytes) -> bytes:
    """The origin stack's artefact: a pickled classifier of these trees, which predicts on the thread that asks."""
    import xgboost  # noqa: PLC0415 - where the artefact is made

    classifier = xgboost.XGBClassifier()
    classifier.load_model(bytearray(booster))
    classifier.set_params(n_jobs=1)
    return pickle.dumps(classifier)


def origin(pickle_path: str, dsn: str) -> Any:
    """The origin stack's application."""
    import numpy as np  # noqa: PLC0415 - in the child process
    import shap  # type: ignore[import-untyped]  # noqa: PLC0415
    from fastapi import FastAPI  # noqa: PLC0415
    from pydantic import BaseModel  # noqa: PLC0415
    from sqlalchemy import JSON, Column, Float, MetaData, String, Table, create_engine, insert  # noqa: PLC0415

    classifier = pickle.loads(Path(pickle_path).read_bytes())
    explainer = shap.TreeExplainer(classifier)
    names = [f"f{place}" for place in range(classifier.n_features_in_)]
    engine = create_engine(dsn.replace("postgresql://", "postgresql+psycopg://"), pool_size=16, max_overflow=48)
    metadata = MetaData()
    table = Table(
        "origin_predictions",
        metadata,
        Column("transaction_id", String, primary_key=True),
        Column("score", Float),
        Column("decision", String),
        Column("reasons", JSON),
        Column("features", JSON),
    )
    metadata.create_all(engine)
    app = FastAPI()

    class Request(BaseModel):
        transaction_id: str
        amount: float
        features: list[float]

    @app.post("/predict")
    def predict(request: Request) -> dict[str, Any]:
        values = request.features
        row_of_features = np.array([values], dtype=np.float32)
        score = float(classifier.predict_proba(row_of_features)[0, 1])
        contributions = explainer.shap_values(row_of_features)[0]
        order = np.argsort(-contributions)[:4]
        reasons = [{"feature": names[place], "contribution": float(contributions[place])} for place in order]
        decision = "decline" if score >= 0.8 else "approve"
        row = {
            "transaction_id": request.transaction_id,
            "score": score,
            "decision": decision,
            "reasons": reasons,
            "features": dict(zip(names, values, strict=True)),
        }
        with engine.begin() as connection:
            connection.execute(insert(table), row)
        return {"transaction_id": request.transaction_id, "score": score, "decision": decision, "reasons": reasons}

    return app


def origin_from_environment() -> Any:
    """For uvicorn's workers."""
    return origin(os.environ["BENCH_PICKLE"], os.environ["BENCH_DSN"])


FLOOR_APP = f"""
import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)


@app.route(route="score", methods=["POST"])
async def score(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse({CONSTANT!r}, mimetype="application/json")
"""
"""The floor: the same HTTP server and the same worker library, and constant bytes."""


def body_of_origin(transaction_id: str) -> bytes:
    """A request of the origin stack."""
    features = [float(place % 5) for place in range(25)]
    return json.dumps({"transaction_id": transaction_id, "amount": 42.5, "features": features}).encode()


def main() -> None:
    """Serve the origin stack: `python -m benchmarks.http_peers PORT WORKERS`."""
    import uvicorn  # noqa: PLC0415 - in the child process

    uvicorn.run(
        "benchmarks.http_peers:origin_from_environment",
        factory=True,
        port=int(sys.argv[1]),
        workers=int(sys.argv[2]),
        http="httptools",
        loop="uvloop",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
