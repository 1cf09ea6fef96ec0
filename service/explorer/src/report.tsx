/** Telling the shop that an answer is wrong: about one neighbour, for people to review; nothing changes by itself. */
import { useState } from "preact/hooks";
import { api, Failure, type Reason } from "./api";
import { useShell } from "./hooks";

export function Report({ seed, item }: { seed: string | null; item: string }) {
  const { t, failed, answered, askKey, say } = useShell();
  const [said, setSaid] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const send = async (reason: Reason) => {
    setBusy(true);
    try {
      const found = await api.report(item, reason, seed);
      answered();
      const text = found.status === "pending" ? t("reported", { n: found.reports }) : t("reported_decided");
      setSaid(text);
      say(text);
    } catch (error) {
      const refused = error instanceof Failure ? error : new Failure(0, String(error));
      failed(refused);
      setSaid(refused.status === 0 ? t("offline") : refused.message);
      if (refused.status === 401 || refused.status === 403) askKey(refused);
    }
    setBusy(false);
  };
  return (
    <div class="report">
      <h3>{t("report")}</h3>
      <p class="row">
        {seed !== null && (
          <button class="chip" disabled={busy} onClick={() => void send("not_similar")}>{t("report_not_similar")}</button>
        )}
        <button class="chip" disabled={busy} onClick={() => void send("harmful")}>{t("report_harmful")}</button>
      </p>
      <p class="quiet" role="status">{said ?? t("report_why")}</p>
    </div>
  );
}
