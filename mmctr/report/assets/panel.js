// Shows HTML that Python has made and escaped, and tells Python which of its buttons was pressed.
function render({ model, el }) {
  el.setAttribute("role", "region");
  el.setAttribute("aria-label", model.get("label"));
  if (model.get("live")) el.setAttribute("aria-live", "polite");
  // Else JupyterLab would take Enter and Space on a button for its own.
  el.dataset.lmSuppressShortcuts = "true";

  const buttons = () => [...el.querySelectorAll("button")];
  const draw = () => {
    const place = buttons().indexOf(document.activeElement);
    const key = document.activeElement?.dataset.key;
    el.innerHTML = model.get("html");
    if (place < 0) return;
    const same = buttons().find((button) => button.dataset.key === key);
    (same ?? buttons()[Math.min(place, buttons().length - 1)])?.focus();
  };
  el.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) model.send({ action: button.dataset.action, value: Number(button.dataset.value) });
  });
  model.on("change:html", draw);
  draw();
}

export default { render };
