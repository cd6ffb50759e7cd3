(() => {
  "use strict";
  const all = (query) => Array.from(document.querySelectorAll(query));
  const press = (group, button) => group.forEach((b) => b.setAttribute("aria-pressed", String(b === button)));

  const panelButtons = all("[data-panel]");
  all("[data-panel-controls], [data-overlay-controls]").forEach((bar) => { bar.hidden = false; });
  const showPanel = (button) => {
    press(panelButtons, button);
    all("[data-panel-id]").forEach((panel) => { panel.hidden = panel.dataset.panelId !== button.dataset.panel; });
  };
  panelButtons.forEach((button) => button.addEventListener("click", () => showPanel(button)));
  if (panelButtons.length) showPanel(panelButtons[0]);

  const overlayButtons = all("[data-overlay]");
  overlayButtons.forEach((button) => button.addEventListener("click", () => {
    press(overlayButtons, button);
    all("[data-overlay-target]").forEach((plots) => { plots.dataset.show = button.dataset.overlay; });
  }));

  const tip = document.getElementById("tip");
  all(".plot title").forEach((title) => {
    const mark = title.parentNode;
    const words = title.textContent;
    title.remove();
    mark.addEventListener("pointerenter", () => {
      tip.textContent = words;
      tip.hidden = false;
      const box = mark.getBoundingClientRect();
      const left = box.left + box.width / 2 - tip.offsetWidth / 2;
      const edge = document.documentElement.clientWidth - tip.offsetWidth - 8;
      tip.style.left = Math.max(8, Math.min(left, edge)) + window.scrollX + "px";
      const above = box.top - tip.offsetHeight - 8;
      tip.style.top = (above > 0 ? above : box.bottom + 8) + window.scrollY + "px";
    });
    mark.addEventListener("pointerleave", () => { tip.hidden = true; });
  });

  window.addEventListener("beforeprint", () => all("details:not(.long)").forEach((d) => { d.open = true; }));
})();
