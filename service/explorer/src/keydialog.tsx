/** Asks for an API key. It goes into the memory of this page and nowhere else. */
import { useEffect, useRef, useState } from "preact/hooks";
import type { Failure } from "./api";
import { useShell } from "./hooks";

export function KeyDialog({ failure, use, later }: {
  failure: Failure | null;
  use: (key: string) => void;
  later: () => void;
}) {
  const { t } = useShell();
  const dialog = useRef<HTMLDialogElement>(null);
  const [key, setKey] = useState("");
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} aria-labelledby="keytitle" onCancel={later}>
      <form onSubmit={(event) => {
        event.preventDefault();
        if (key.trim()) use(key.trim());
      }}>
        <h2 id="keytitle">{t("key_title")}</h2>
        <p>{t("key_why")}</p>
        {failure && <p class="refused" role="alert">{t("key_wrong", { detail: failure.message })}</p>}
        <label class="field">
          <span>{t("key_label")}</span>
          <input type="password" value={key} autocomplete="off" autofocus spellcheck={false}
            onInput={(event) => setKey(event.currentTarget.value)} />
        </label>
        <div class="row">
          <button type="button" class="plain" onClick={later}>{t("later")}</button>
          <button type="submit" class="solid" disabled={!key.trim()}>{t("key_use")}</button>
        </div>
      </form>
    </dialog>
  );
}
