// When all parts stand: land where the address points, now and after the fonts and the rest have loaded.
goTo(location.hash);
addEventListener("load", () => goTo(location.hash));
document.body.dataset.ready = "yes";
