r"""Tables of words that name harm: classes of English words for :mod:`~safekey_interp.segmentation.lexicon.patterns`.

They name acts and things that harm, never a prompt's own words. :data:`TOUCHY` is wider: what harmful requests are
about when no word of theirs names harm (groups of people, substances, persuasion, getting past a rule, money, sex and
health).
"""

VIOLENCE = r"""
kill(?:s|ed|er|ers|ing|ings)? murder\w* assassinat\w+ poison\w* stab(?:s|bed|bing)? strangl\w+ chok(?:e|es|ing)
drown(?:s|ed|ing)? burn(?:s|ed|ing)?_(?:down|the|a|someone) maim\w* smash\w* crush\w* whip(?:s|ped|ping)?
starv(?:e|es|ed|ing) trap(?:s|ped|ping)? tortur\w+ attack\w* assault\w* beat(?:ing)?_(?:up|him|her|my|them|someone)
punch\w* shoot(?:s|ing|ings)? lynch\w* bomb(?!ard)\w* explosi\w+ detonat\w+ grenades? guns? pistols? firearms? rifles?
ammunition silencers? weapons?\w* arson\w* molotov napalm anthrax nerve_agents? sarin ricin cyanide arsenic phosgene
chlorine_gas anfo tnt c-?4 rdx petn thermite ammonium_nitrate gunpowder terroris\w+ genocid\w* massacr\w+
ethnic_cleansing holocaust riots? violen(?:t|ce|tly) brutal\w* tranquiliz\w+ kidnap\w* abduct\w* hostages?
dispos\w+_of_(?:a|the)_(?:body|bodies) corpses? blood(?:y|shed) infect(?:s|ed|ing)? inflict\w* casualt\w+ warfare
carjack\w* electrocut\w+ self-inflicted wounds? harm(?:s|ed|ing|ful)? hurt(?:s|ing|ful)? injur\w+ tox(?:ic|in)\w*
lethal deadly torment\w* sabotag\w+ destroy\w* vandal\w+ damag\w+ punctur\w+ exterminat\w+ wipe_out eradicat\w+
ruin\w* enslav\w+ slave(?:s|ry)? overthrow\w* painful_\w+ inflicting cruel\w* get(?:ting)?_back_at revenge
silenc(?:e|ing)_(?:him|her|them|someone|witness\w*|critics) (?:start|set)\w*_(?:a_|the_)?(?:\w+_)?fires? wildfires?
dangerous(?:ly)? endangered_\w+ look(?:s)?_like_an_accident
"""
"""Violence, weapons, poison and explosives."""

CRIME = r"""
illegal\w* unlawful\w* illicit\w* crim(?:e|es|inal|inals) felon\w+ steal(?:s|ing)? stole[n]? theft\w* thiev\w+
rob(?:s|bed|bing|bery|bers?)? burgl\w+ shoplift\w* loot\w* hack(?:s|ed|er|ers|ing)? malware ransomware spyware
keylogg\w+ virus(?:es)? trojan\w* worms? botnets? ddos phish\w* exploit\w* backdoors? rootkits?
crack(?:ing)?_(?:a|the|pass\w*|into|wi-?fi|soft\w*) brute[-_]force sql_injection identity_theft fraud\w* scam\w*
fak(?:e|ed|es|ing) forg(?:e|es|ed|ing|ery|eries) counterfeit\w* bootleg\w* phony fabricat\w+ falsif\w+ plagiari\w+
cheat\w* brib\w+ extort\w* blackmail\w* launder\w* embezzl\w+ insider_trading ponzi pyramid_scheme tax_evasion evad\w+
smuggl\w+ traffick\w+ poach\w* pirat(?:e|ed|es|ing) piracy torrents? dark_?web black_market contraband cartels? gangs?
drug_deal\w+ sell\w*_drugs? cocaine heroin meth(?:amphetamine)? fentanyl lsd mdma ecstasy oxy\w* opioids? psilocybin
steroids ghb rohypnol date[-_]rape roofi\w+ huff\w* spik(?:e|ing)_(?:a|her|his|someone)
escap\w+_(?:from_)?(?:\w+_)?(?:prison|jail|correctional)\w* jailbreak\w* manipulat\w+ tamper\w* rig(?:ged|ging)?
cover(?:ing)?_up evidence secretly undetect\w+ untrace\w+ surreptitious\w* covert\w* clone(?:d|s)? cloning
without_(?:[\w']+_){0,5}(?:getting_caught|be?ing_caught|caught|detect\w+|consent|permission|knowing|knowledge|paying|asking|credit|giving_(?:\w+_)?credit|authori[sz]ation|license|a_license|prescription|background_check|attribut\w+|attracting|traces?|noticing)
unauthori[sz]ed bypass\w* circumvent\w* spy(?:ing)? stalk\w* wiretap\w* bug(?:ged|ging) break(?:ing)?_into hijack\w*
impersonat\w+ pretend\w* trick(?:s|ed|ing)?(?!_or_treat) deceiv\w+ decepti\w+ decept\w+ lie lying mislead\w* defam\w+
slander\w* libel\w* dox+\w* leak(?:s|ed|ing)? classified confidential
sensitive_(?:internal|information|data|documents?) credit_card_(?:numbers?|info\w*|fraud) passwords? disinformation
misinformation false(?:ly)?(?!_(?:beliefs?|alarms?|positives?)) propaganda conspirac\w+ hoax\w* rumou?rs? incit\w+
unproven discredit\w* deny\w* denial
unsubstantiated misleading (?:sell|buy)\w*_(?:a_|my_|his_|her_|their_)?(?:kidneys?|organs?|baby|votes?)
avoid\w*_(?:being_|getting_)?(?:caught|detect\w+|suspicion|arrest\w*|notice|conviction|convicted|prosecution)
get\w*_away_with (?:incorrect|inaccurate|wrong|biased)_(?:\w+_)?(?:info\w*|advice|facts|data) pos(?:e|es|ing)_as
spoof\w*
robocall\w* knock-?offs? siphon\w* funnel\w*_(?:\w+_)?(?:money|funds) child_labou?r drunk_driving behind_\w+_backs?
(?:someone|somebody|(?:an)?other_(?:person|people)|people|others)(?:_else)?'s_(?:social_security|identity|password|account|credit|bank|private|personal)\w*
deepfak\w* cryptomin\w* ddos denial_of_service denial-of-service shell_compan\w+
insurance_(?:claims?|fraud) dump(?:s|ed|ing)?_(?:\w+_)?waste
"""
"""Crime, fraud, deceit, intrusion, drugs and doing things in secret."""

ABUSE = r"""
hat(?:e|red|eful) racis[tm]\w* sexis[tm]\w* homophob\w+ transphob\w+ islamophob\w+ antisemit\w+ anti-semit\w+ nazis?
white_suprem\w+ slurs? insult\w* derogat\w+ demean\w* degrad\w+ offensive humiliat\w+ bully\w* bullied harass\w*
intimidat\w+ threat\w* stereotyp\w+ discriminat\w+ inferior\w* superior_race subhuman
racial(?:ly)?_(?:background|profil\w+|group) (?:certain|specific)_rac\w+ rap(?:e|es|ed|ing|ist|ists)
molest\w* grop(?:e|ing) sexual(?:ly)?_(?:assault|abus|harass|exploit)\w* revenge_porn porn\w* voyeur\w* upskirt\w*
pedophil\w+ incest\w* prostitut\w+ nud(?:e|es) abus(?:e|es|ed|ing|ive) suicid\w+ self-harm\w*
cut(?:ting)?_(?:myself|himself|herself|themsel\w+|yourself|my_wrist)
hang(?:ing)?_(?:myself|themsel\w+|himself|herself)
(?:end|ending|take|taking)_(?:my|their|his|her|your)_(?:own_)?li(?:fe|ves) overdos\w+ anorexi\w+ bulimi\w+ skinny
coerc\w+ sexual_(?:demands?|favou?rs?|advances) eating_disorders? sham(?:e|ing)_\w+ gaslight\w* brainwash\w*
catfish(?:ed|ing)
cannibal\w* suffer(?:ing)?
"""
"""Hate, harassment, sexual abuse and self-harm."""

TOUCHY = r"""
rac(?:e|es|ial) ethnic\w* whites? blacks? latin[oa]s? mexicans? asians? african\w* jew(?:s|ish)? muslims? islam\w*
christians? buddhis\w+ hindus? religio\w+ immigra\w+ refugees? indigenous native_americans? gays? lgbt\w* lesbians?
trans(?:gender)? homosexual\w* xenophob\w* misogyn\w* women_(?:are|should|can) disabled disabilit\w+ of_color
supremac\w+ people_from drugs? high_on get(?:ting)?_high marijuana cannabis weed alcohol drunk drink(?:ing)?_age
bongs? inhalants? amphetamines? hallucinogen\w* pills? prescri\w+ bath_salts synthesi[sz]e\w* homemade chemicals? gas
razor\w* kni(?:fe|ves) blade\w* flame\w* fire laser nuclear biological body convince persua\w+ coerc\w+ blam\w+ lies
believe make_(?:people|someone|it_look|them) posing_as pos(?:e|es)_as looks?_(?:exactly_)?like deepfak\w* bots?
automat\w+_(?:account|post)\w* anonym\w+ claim\w* spread\w* prove myths? vaccin\w* 5g covid\w* illuminati election\w*
vot(?:e|er|ers|ing) politic\w+ propagand\w* indoctrinat\w* cults? radicali\w+ extremis\w* militari\w+ militant\w*
protest\w* climate_change global_warming abortion brainwash\w* subliminal guilt fear mind_games
control_(?:someone|people|her|him) indebted gaslight\w* catfish\w* scheme\w* tax(?:es)? loans? gambl\w+ bet(?:s|ting)?
stocks? invest\w* offshore shell_compan\w+ insurance bank(?:s|ing)? credit debit charge\w* social_security accounts?
passports? visa ids? background_check license[ds]? watermarks? copyright\w* drm paywall\w*
personal_(?:info\w*|data|details) private addresses home_address phone_numbers? track(?:s|ing|ed)? monitor\w*
surveil\w* access_to permission consent\w* sneak\w* hid(?:e|ing|den) secret\w* caught avoid\w* evade\w* detect\w*
disguis\w+ silent\w* police authorit\w+ inspect\w+ prison\w* jail\w* convict\w* court\w* law(?:s)? legal\w* rules?
get(?:ting)?_rid_of tak(?:e|ing)_(?:out|down) shut(?:ting)?_down disrupt\w* disabl\w+ interfer\w* imped\w* revenge
vigilante punish\w* victim\w* disgust\w* contempt negative mock\w* make_fun ridicul\w+ shame jealous dangerous\w*
risky unsafe sex\w* erotic\w* nak(?:ed|edness) explicit intimate orgi\w+ seduc\w+ fetish\w* escorts? brothel\w*
minors? underage teen\w* suicide\w* weight_loss lose_weight purg(?:e|ing) diagnos\w+ treat(?:ing|ment)? medical
germs? flu contagio\w* schizo\w* disease\w* die dying dea(?:d|th)
"""
"""What harmful requests are about although no word of theirs names harm."""
