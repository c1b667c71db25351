// A box that scrolls can be reached and scrolled by keyboard.
const boxes = ".wide, .equation, .md-typeset__scrollwrap, .highlight code, .doc-signature code";
const reach = () => {
  for (const box of document.querySelectorAll(boxes)) {
    if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
  }
};
document.addEventListener("DOMContentLoaded", () => {
  reach();
  new MutationObserver(reach).observe(document.body, {childList: true, subtree: true});
});
window.addEventListener("resize", reach);
