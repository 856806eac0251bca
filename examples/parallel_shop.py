"""A shop whose cart survives parallel clicks: ten requests at once, ten books.

Install: ``python -m pip install "wsgisession-middleware[flask,sqlalchemy]"``
Run:     ``python examples/parallel_shop.py``
"""

import os
import time

from flask import Flask, redirect, render_template_string, session

from wsgisession.integrations.flask import Sessions

PORT = int(os.environ.get("PORT", "8000"))

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Book shop</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
  :root { color-scheme: light dark }
  body { font: 1.1rem/1.5 system-ui, sans-serif; max-width: 32rem; margin: 2rem auto;
         padding: 0 1rem }
  button { font: inherit; padding: .5rem 1rem; margin: 0 .5rem .5rem 0 }
  #count { font-size: 3rem; font-weight: 600 }
</style>
<h1>Book shop</h1>
<p><span id="count">{{ session.get("cart", [])|length }}</span> books in your cart</p>
<form method="post" action="/add"><button>Add a book</button>
  <button type="button" id="ten">Add ten at once</button></form>
<form method="post" action="/empty"><button>Empty the cart</button></form>
<p>Each request takes a fifth of a second between reading the cart and adding to it.
  Most session libraries keep one or two of ten.</p>
<script>
  document.getElementById("ten").onclick = async () => {
    const clicks = Array.from({length: 10}, () => fetch("/add", {method: "POST"}))
    await Promise.all(clicks)
    location.reload()
  }
</script></html>"""

application = Flask(__name__)
application.config["SESSION_URL"] = os.environ.get("SESSION_URL", "sqlite:///shop.db")
Sessions(application)


@application.get("/")
def show():
    """The cart."""
    return render_template_string(PAGE)


@application.post("/add")
def add():
    """Look at the cart, think, and add to it."""
    cart = session.get("cart", [])
    time.sleep(0.2)
    session["cart"] = [*cart, "book"]
    return redirect("/", 303)


@application.post("/empty")
def empty():
    """Begin anew."""
    session.pop("cart", None)
    return redirect("/", 303)


if __name__ == "__main__":
    application.run(port=PORT, threaded=True)
